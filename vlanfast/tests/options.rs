//! Checks that `docs/options.md` agrees with the help of the command line. All rows of the tables are generated:
//! `UPDATE=1 cargo test -p vlanfast --test options` writes them anew, between the markers in that file.

use std::{env, fs};

use clap::{Arg, Command, CommandFactory};
use vlanfast::cli::Cli;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/options.md");
const BEGIN: &str = "<!-- options: begin -->\n";
const END: &str = "<!-- options: end -->\n";

/// Generates one table for each command, and for each subcommand.
fn tables(command: &Command, path: &str, to: &mut String) {
    for verb in command.get_subcommands() {
        if verb.get_name() == "help" {
            continue;
        }
        let path = format!("{path} {}", verb.get_name());
        let about = verb.get_about().expect("every verb has a help text");
        to.push_str(&format!("## `{path}`\n\n{about}.\n\n"));
        to.push_str("| option | default | what it does |\n|---|---|---|\n");
        let arguments = verb.get_arguments();
        for arg in arguments.filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version")) {
            to.push_str(&row(arg));
        }
        to.push('\n');
        tables(verb, &path, to);
    }
}

fn row(arg: &Arg) -> String {
    let help = arg.get_help().expect("every option has a help text");
    let defaults: Vec<_> = arg
        .get_default_values()
        .iter()
        .map(|value| format!("`{}`", value.to_string_lossy()))
        .collect();
    // A switch has a default as well, which is off.
    let default = match arg.get_action().takes_values() {
        true => defaults.join(","),
        false => String::new(),
    };
    let cell = |text: &str| text.replace('|', "\\|");
    format!(
        "| `{}` | {default} | {} |\n",
        cell(&option(arg)),
        cell(&help.to_string())
    )
}

/// Formats an option as it is typed: `--name VALUE`, or the name of a positional argument.
fn option(arg: &Arg) -> String {
    let names = arg.get_value_names().unwrap_or_default().join(" ");
    let values = arg.get_possible_values();
    let values: Vec<_> = values.iter().map(|value| value.get_name()).collect();
    let value = match (arg.get_action().takes_values(), values.is_empty()) {
        (false, _) => String::new(),
        (true, true) => names,
        (true, false) => values.join("|"),
    };
    match (arg.get_short(), arg.get_long()) {
        _ if arg.is_positional() && arg.is_required_set() => value,
        _ if arg.is_positional() => format!("[{value}]"),
        (Some(short), Some(long)) => format!("-{short}, --{long} {value}").trim_end().to_owned(),
        (_, Some(long)) => format!("--{long} {value}").trim_end().to_owned(),
        (short, None) => format!("-{} {value}", short.unwrap_or_default()),
    }
}

#[test]
fn the_page_of_options_is_the_help_of_the_command_line() {
    let mut expected = String::new();
    let mut command = Cli::command();
    command.build();
    tables(&command, "vlanfast", &mut expected);
    let page = fs::read_to_string(FILE).unwrap();
    let parts = page.split_once(BEGIN).zip(page.split_once(END));
    let ((before, _), (_, after)) = parts.expect("docs/options.md has both markers");
    let renewed = format!("{before}{BEGIN}\n{expected}{END}{after}");
    if env::var_os("UPDATE").is_some() {
        fs::write(FILE, renewed).unwrap();
    } else {
        assert!(
            page == renewed,
            "docs/options.md is out of date: run `UPDATE=1 cargo test -p vlanfast --test options`"
        );
    }
}

/// Checks that every option has a help line, and a longer text with an example.
#[test]
fn every_option_has_a_line_of_help_and_an_example() {
    fn check(command: &Command) {
        for arg in command.get_arguments() {
            let name = format!("{} {}", command.get_name(), arg.get_id());
            let help = arg
                .get_help()
                .unwrap_or_else(|| panic!("{name} has no help"));
            assert_eq!(help.to_string().lines().count(), 1, "{name}");
            let long = arg.get_long_help().map(ToString::to_string);
            assert!(long.is_some_and(|long| long.contains("xample: ")), "{name}");
        }
        for verb in command.get_subcommands() {
            let examples = verb.get_after_long_help().map(ToString::to_string);
            assert!(examples.is_some_and(|it| it.contains("Example")) || verb.has_subcommands());
            check(verb);
        }
    }
    check(&Cli::command());
}
