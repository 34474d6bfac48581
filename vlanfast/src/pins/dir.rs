//! A directory that only root, or our own user, owns and can write to. It is kept open and used by its descriptor, so
//! renaming or replacing a directory on the path has no effect.

use std::{
    ffi::OsStr,
    os::fd::{AsRawFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
};

use anyhow::Context;
use nix::{
    dir,
    errno::Errno,
    fcntl::{AtFlags, OFlag, open, openat, renameat},
    sys::stat::{FileStat, Mode, fstat, fstatat, mkdirat},
    unistd::{UnlinkatFlags, geteuid, unlinkat},
};

use crate::{error::Error, state::name::Name};

/// Opens directories only, and follows no symbolic link.
const DIRECTORY: OFlag = OFlag::O_DIRECTORY
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

#[derive(Clone, Debug)]
pub struct Dir {
    fd: Arc<OwnedFd>,
    /// The path for messages.
    shown: String,
}

impl Dir {
    /// Opens the directory at a path. The path must be a constant, because it is not checked.
    pub fn at(path: &str) -> Result<Self, Errno> {
        let fd = open(path, DIRECTORY, Mode::empty())?;
        Ok(Self {
            fd: Arc::new(fd),
            shown: path.to_owned(),
        })
    }

    /// Opens a directory in this one; `None` if there is none. A directory that others can write to is an error.
    pub fn open(&self, name: &[u8]) -> anyhow::Result<Option<Self>> {
        let shown = self.shown(name);
        let fd = match openat(&*self.fd, name, DIRECTORY, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::ENOENT) => return Ok(None),
            // With O_DIRECTORY a symbolic link gives ENOTDIR, on some file systems ELOOP.
            Err(Errno::ENOTDIR | Errno::ELOOP) => {
                let remedy = format!("run `rm {shown}`");
                let why = "it is a link or a file, not a directory".into();
                return Err(Error::Untrusted {
                    directory: shown,
                    why,
                    remedy,
                }
                .into());
            }
            Err(error) => return Err(error).with_context(|| format!("failed to open {shown}")),
        };
        let dir = Self {
            fd: Arc::new(fd),
            shown,
        };
        match distrust(&dir.stat()?, &self.stat()?) {
            None => Ok(Some(dir)),
            Some(why) => {
                let directory = dir.shown;
                let remedy = format!(
                    "check what is in it, then remove it, or run `chown root {directory} && chmod 700 {directory}`"
                );
                Err(Error::Untrusted {
                    directory,
                    why,
                    remedy,
                }
                .into())
            }
        }
    }

    /// Makes a directory with mode 0700, unless something with that name exists.
    pub fn make(&self, name: &[u8]) -> Result<(), Errno> {
        match mkdirat(&*self.fd, name, Mode::S_IRWXU) {
            Err(Errno::EEXIST) => Ok(()),
            made => made,
        }
    }

    /// Opens the directory again. The new descriptor has locks of its own.
    pub fn again(&self) -> anyhow::Result<OwnedFd> {
        openat(&*self.fd, c".", DIRECTORY, Mode::empty())
            .with_context(|| format!("failed to open {}", self.shown))
    }

    /// The names of all files in the directory.
    pub fn names(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        let read = || -> Result<Vec<Vec<u8>>, Errno> {
            let mut dir = dir::Dir::openat(&*self.fd, c".", DIRECTORY, Mode::empty())?;
            let entries = dir
                .iter()
                .map(|entry| Ok(entry?.file_name().to_bytes().to_vec()));
            entries.collect()
        };
        let mut names = read().with_context(|| format!("failed to read {}", self.shown))?;
        names.retain(|name| !matches!(name.as_slice(), b"." | b".."));
        Ok(names)
    }

    /// The attributes of the directory.
    pub fn stat(&self) -> anyhow::Result<FileStat> {
        fstat(&*self.fd).with_context(|| format!("failed to look at {}", self.shown))
    }

    /// Whether a file with that name exists. Any error but ENOENT is an error.
    pub fn has(&self, name: &OsStr) -> anyhow::Result<bool> {
        match fstatat(&*self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(error) => Err(error).with_context(|| {
                format!("failed to look at {}", self.shown(name.as_encoded_bytes()))
            }),
        }
    }

    /// Whether this directory has that name in another one.
    pub fn is_called(&self, name: &[u8], parent: &Self) -> anyhow::Result<bool> {
        let own = self.stat()?;
        Ok(
            match fstatat(&*parent.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(named) => (named.st_dev, named.st_ino) == (own.st_dev, own.st_ino),
                Err(Errno::ENOENT) => false,
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("failed to look at {}", parent.shown(name)));
                }
            },
        )
    }

    /// A path to a file in this very directory, for calls that take no descriptor. It stays valid when the directory is
    /// renamed, as long as this value exists.
    pub fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd())).join(name)
    }

    /// Renames a file in the directory.
    pub fn rename(&self, old: &[u8], new: &[u8]) -> Result<(), Errno> {
        renameat(&*self.fd, old, &*self.fd, new)
    }

    /// Removes a file or a symbolic link.
    pub fn unlink(&self, name: &[u8]) -> Result<(), Errno> {
        unlinkat(&*self.fd, name, UnlinkatFlags::NoRemoveDir)
    }

    /// Removes an empty directory.
    pub fn remove(&self, name: &[u8]) -> Result<(), Errno> {
        unlinkat(&*self.fd, name, UnlinkatFlags::RemoveDir)
    }

    /// The path of a file in the directory, for messages.
    pub fn shown(&self, name: &[u8]) -> String {
        format!("{}/{}", self.shown, Name::new(name))
    }

    pub const fn fd(&self) -> &Arc<OwnedFd> {
        &self.fd
    }
}

/// The reason why a directory can't be trusted, if there is one.
fn distrust(dir: &FileStat, parent: &FileStat) -> Option<String> {
    let owner = dir.st_uid;
    if owner != 0 && owner != geteuid().as_raw() {
        return Some(format!("it belongs to user {owner}"));
    }
    if dir.st_mode & 0o022 != 0 {
        let mode = dir.st_mode & 0o7777;
        return Some(format!("others can write to it (mode {mode:04o})"));
    }
    (dir.st_dev != parent.st_dev).then(|| "another file system is mounted on it".into())
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt, symlink},
    };

    use super::*;

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path();
        let parent = Dir::at(path.to_str().unwrap()).unwrap();
        assert!(parent.open(b"none").unwrap().is_none());
        parent.make(b"fine").unwrap();
        parent.make(b"fine").unwrap();
        let fine = parent.open(b"fine").unwrap().unwrap();
        assert_eq!(fine.stat().unwrap().st_mode & 0o7777, 0o700);
        symlink(path.join("fine"), path.join("link")).unwrap();
        fs::write(path.join("file"), "").unwrap();
        for mode in [0o770, 0o702, 0o1777] {
            let name = format!("{mode:o}");
            fs::create_dir(path.join(&name)).unwrap();
            fs::set_permissions(path.join(&name), fs::Permissions::from_mode(mode)).unwrap();
        }
        for name in ["link", "file", "770", "702", "1777"] {
            let error = parent.open(name.as_bytes()).unwrap_err();
            let error = error.downcast::<Error>().unwrap();
            assert!(matches!(error, Error::Untrusted { .. }), "{name}: {error}");
            assert!(error.to_string().contains(&format!("/{name}")), "{error}");
        }
    }

    #[test]
    fn the_opened_directory_is_used_even_if_it_is_renamed() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path();
        let parent = Dir::at(path.to_str().unwrap()).unwrap();
        parent.make(b"ours").unwrap();
        let ours = parent.open(b"ours").unwrap().unwrap();
        fs::rename(path.join("ours"), path.join("moved")).unwrap();
        fs::create_dir(path.join("ours")).unwrap();
        fs::write(path.join("ours/file"), "theirs").unwrap();
        fs::write(ours.path("file"), "ours").unwrap();
        assert_eq!(ours.names().unwrap(), [b"file"]);
        assert!(ours.is_called(b"moved", &parent).unwrap());
        assert!(!ours.is_called(b"ours", &parent).unwrap());
        ours.unlink(b"file").unwrap();
        assert_eq!(fs::read(path.join("ours/file")).unwrap(), b"theirs");
        assert!(ours.names().unwrap().is_empty());
    }
}
