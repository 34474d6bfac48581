//! Reads the modules of a crate with `syn`: their items, and the modules that they use.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Attribute, Item, UseTree,
    visit::{self, Visit},
};

/// The modules of a crate; the first is its root. Modules that only tests have are left out.
pub struct Modules {
    all: Vec<Module>,
}

/// A module. An inline one belongs to the module whose file it is in.
#[derive(Default)]
pub struct Module {
    /// `hooks::attach`; empty for the root.
    pub path: String,
    pub file: PathBuf,
    /// Index of the module whose file this one is in.
    owner: usize,
    parent: usize,
    children: BTreeMap<String, usize>,
    items: BTreeSet<String>,
    imports: Vec<Import>,
    /// Every path in the code outside of `use`.
    mentions: BTreeSet<Vec<String>>,
}

struct Import {
    path: Vec<String>,
    /// The name of the import in this module; `*` for a glob.
    name: String,
    /// A re-export does not count as a use: code that names it uses the original.
    is_exported: bool,
}

/// The target of a path.
#[derive(Clone, Copy)]
enum Found {
    Module(usize),
    ItemOf(usize),
}

/// A use of one module by another, with an example of the path.
pub struct Use<'a> {
    pub from: &'a Module,
    pub to: &'a Module,
    pub path: String,
}

/// The number of re-exports that are followed, because Rust allows circles of them.
const DEPTH: usize = 16;

impl Modules {
    /// Reads a crate from its root file.
    pub fn read(root: &Path) -> Result<Self> {
        let mut modules = Self { all: vec![] };
        let directory = root.parent().unwrap_or(root);
        modules.file(String::new(), root, directory, 0)?;
        Ok(modules)
    }

    /// Returns every module that has a file of its own.
    pub fn files(&self) -> impl Iterator<Item = &Module> {
        let own = |(index, module): &(usize, &Module)| module.owner == *index;
        self.all
            .iter()
            .enumerate()
            .filter(own)
            .map(|(_, module)| module)
    }

    /// Returns every use of one file's module by another's, each pair once.
    pub fn uses(&self) -> Vec<Use<'_>> {
        let mut pairs = BTreeMap::new();
        for (index, module) in self.all.iter().enumerate() {
            let imports = module.imports.iter().filter(|import| !import.is_exported);
            for path in imports.map(|import| &import.path).chain(&module.mentions) {
                let Some(Found::Module(to) | Found::ItemOf(to)) = self.resolve(index, path, DEPTH)
                else {
                    continue;
                };
                let (from, to) = (module.owner, self.all[to].owner);
                if from != to {
                    pairs.entry((from, to)).or_insert_with(|| path.join("::"));
                }
            }
        }
        let uses = pairs.into_iter().map(|((from, to), path)| Use {
            from: &self.all[from],
            to: &self.all[to],
            path,
        });
        uses.collect()
    }

    /// Returns the first segments of all paths that lead out of a module's crate.
    pub fn outside(&self) -> impl Iterator<Item = (&Module, &str)> {
        self.all
            .iter()
            .enumerate()
            .flat_map(move |(index, module)| {
                let imports = module.imports.iter().map(|import| &import.path);
                let paths = imports
                    .chain(&module.mentions)
                    .filter(|path| path.len() > 1);
                let outside = paths.filter(move |path| self.resolve(index, path, DEPTH).is_none());
                outside.map(move |path| (module, path[0].as_str()))
            })
    }

    fn file(&mut self, path: String, file: &Path, below: &Path, parent: usize) -> Result<usize> {
        let text = fs::read_to_string(file)
            .with_context(|| format!("failed to read {}", file.display()))?;
        let syntax = syn::parse_file(&text)
            .with_context(|| format!("failed to parse {}", file.display()))?;
        let owner = self.all.len();
        self.module(path, file, below, (parent, owner), &syntax.items)
    }

    /// Adds a module and its submodules; `below` is the directory for those.
    fn module(
        &mut self,
        path: String,
        file: &Path,
        below: &Path,
        (parent, owner): (usize, usize),
        items: &[Item],
    ) -> Result<usize> {
        let index = self.all.len();
        let mut reader = Reader::default();
        items.iter().for_each(|item| reader.visit_item(item));
        self.all.push(Module {
            path: path.clone(),
            file: file.to_owned(),
            owner,
            parent,
            items: items.iter().filter_map(name).collect(),
            imports: reader.imports,
            mentions: reader.mentions,
            ..Module::default()
        });
        for item in items {
            let Item::Mod(declared) = item else { continue };
            if is_test(&declared.attrs) {
                continue;
            }
            let name = declared.ident.to_string();
            let path = match path.as_str() {
                "" => name.clone(),
                above => format!("{above}::{name}"),
            };
            let directory = below.join(&name);
            let child = match &declared.content {
                Some((_, items)) => self.module(path, file, &directory, (index, owner), items)?,
                None => {
                    let beside = directory.with_extension("rs");
                    let inside = directory.join("mod.rs");
                    let file = if beside.exists() { beside } else { inside };
                    self.file(path, &file, &directory, index)?
                }
            };
            self.all[index].children.insert(name, child);
        }
        Ok(index)
    }

    /// Follows a path as the compiler does, through modules, imports and globs; a path out of the crate has no
    /// target.
    fn resolve(&self, from: usize, path: &[String], depth: usize) -> Option<Found> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => self.descend(0, rest, depth),
            "self" => self.descend(from, rest, depth),
            "super" => {
                let mut at = self.all[from].parent;
                let mut rest = rest;
                while let Some((_, below)) = rest.split_first().filter(|(word, _)| *word == "super")
                {
                    at = self.all[at].parent;
                    rest = below;
                }
                self.descend(at, rest, depth)
            }
            name if self.knows(from, name, depth) => self.descend(from, path, depth),
            _ => None,
        }
    }

    fn descend(&self, at: usize, path: &[String], depth: usize) -> Option<Found> {
        let Some((name, rest)) = path.split_first() else {
            return Some(Found::Module(at));
        };
        let module = &self.all[at];
        if let Some(child) = module.children.get(name) {
            return self.descend(*child, rest, depth);
        }
        let depth = depth.checked_sub(1)?;
        if let Some(import) = module.imports.iter().find(|import| import.name == *name) {
            // The path may name an item of another crate.
            return match self.resolve(at, &import.path, depth)? {
                Found::Module(there) => self.descend(there, rest, depth),
                item => Some(item),
            };
        }
        if !module.items.contains(name) {
            for there in self.globs(at, depth) {
                if self.knows(there, name, depth) {
                    return self.descend(there, path, depth);
                }
            }
        }
        Some(Found::ItemOf(at))
    }

    /// Checks whether a name is defined in a module.
    fn knows(&self, at: usize, name: &str, depth: usize) -> bool {
        let module = &self.all[at];
        module.children.contains_key(name)
            || module.items.contains(name)
            || module.imports.iter().any(|import| import.name == name)
            || depth.checked_sub(1).is_some_and(|depth| {
                self.globs(at, depth)
                    .any(|there| self.knows(there, name, depth))
            })
    }

    fn globs(&self, at: usize, depth: usize) -> impl Iterator<Item = usize> {
        let globs = self.all[at]
            .imports
            .iter()
            .filter(|import| import.name == "*");
        globs.filter_map(move |import| match self.resolve(at, &import.path, depth)? {
            Found::Module(there) if there != at => Some(there),
            _ => None,
        })
    }
}

/// Collects imports and paths, and leaves out what is compiled only for tests.
#[derive(Default)]
struct Reader {
    imports: Vec<Import>,
    mentions: BTreeSet<Vec<String>>,
}

impl Reader {
    fn import(&mut self, tree: &UseTree, above: &[String], is_exported: bool) {
        let with = |name: &syn::Ident| [above, &[name.to_string()]].concat();
        let (path, name) = match tree {
            UseTree::Path(path) => return self.import(&path.tree, &with(&path.ident), is_exported),
            UseTree::Group(group) => {
                return group
                    .items
                    .iter()
                    .for_each(|tree| self.import(tree, above, is_exported));
            }
            UseTree::Name(name) if name.ident == "self" => {
                (above.to_vec(), above.last().cloned().unwrap_or_default())
            }
            UseTree::Name(name) => (with(&name.ident), name.ident.to_string()),
            UseTree::Rename(name) if name.ident == "self" => {
                (above.to_vec(), name.rename.to_string())
            }
            UseTree::Rename(name) => (with(&name.ident), name.rename.to_string()),
            UseTree::Glob(_) => (above.to_vec(), "*".to_owned()),
        };
        self.imports.push(Import {
            path,
            name,
            is_exported,
        });
    }

    /// A macro's arguments are not a syntax tree: `a::b` in them counts as a path.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = vec![];
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        self.mention(&mut path);
                    }
                    path.push(name.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    self.mention(&mut path);
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
        }
        self.mention(&mut path);
    }

    fn mention(&mut self, path: &mut Vec<String>) {
        let path = std::mem::take(path);
        if path.len() > 1 {
            self.mentions.insert(path);
        }
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        // Submodules are read separately.
        if !matches!(item, Item::Mod(_)) && !attributes(item).is_some_and(is_test) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let is_exported = !matches!(item.vis, syn::Visibility::Inherited);
        self.import(&item.tree, &[], is_exported);
    }

    /// `pub(super)` does not count as a use of the parent.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string());
        self.mentions.insert(segments.collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, invoked: &'ast syn::Macro) {
        self.tokens(invoked.tokens.clone());
        visit::visit_macro(self, invoked);
    }
}

fn is_test(attributes: impl AsRef<[Attribute]>) -> bool {
    let test = |attribute: &Attribute| {
        let list = attribute.meta.require_list();
        list.is_ok_and(|list| list.path.is_ident("cfg") && list.tokens.to_string() == "test")
    };
    attributes.as_ref().iter().any(test)
}

fn attributes(item: &Item) -> Option<&Vec<Attribute>> {
    Some(match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => return None,
    })
}

/// Returns an item's name, if other modules can name it.
fn name(item: &Item) -> Option<String> {
    let name = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(name.to_string())
}
