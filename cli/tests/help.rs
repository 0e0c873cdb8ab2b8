//! What `flagmeter` says of itself: help, completions, mistakes on the command line.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it should be")]

use std::process::{Command, Output};

fn flagmeter(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flagmeter"));
    command.args(arguments).env_clear().output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The arguments that lead to every command, those of the groups too.
fn commands(path: &[String]) -> Vec<Vec<String>> {
    let help = help(path, "-h");
    let listed = help.split_once("\nCommands:\n").map_or("", |(_, rest)| rest);
    let names = listed.lines().take_while(|line| line.starts_with("  "));
    let names = names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    let below = names.flat_map(|name| commands(&[path, &[name.to_owned()]].concat()));
    std::iter::once(path.to_owned()).chain(below).collect()
}

fn help(path: &[String], flag: &str) -> String {
    let arguments: Vec<&str> = path.iter().map(String::as_str).chain([flag]).collect();
    let output = flagmeter(&arguments);
    assert!(output.status.success(), "{path:?} {flag}: {}", stderr(&output));
    stdout(&output)
}

/// Whether nothing is below it.
fn is_leaf(path: &[String]) -> bool {
    !help(path, "-h").contains("\nCommands:\n")
}

#[test]
fn help_of_every_command_is_short_with_one_letter_long_with_the_word_and_at_most_100_wide() {
    let all = commands(&[]);
    assert!(all.len() >= 15, "{all:?}");
    for path in all {
        let (short, long) = (help(&path, "-h"), help(&path, "--help"));
        for line in short.lines().chain(long.lines()) {
            assert!(line.chars().count() <= 100, "{path:?}: {line}");
        }
        let lines = |text: &str| text.lines().count();
        assert!(lines(&short) < lines(&long), "{path:?}:\n{short}");
        // A title, then usage: what takes a paragraph is left to the long form.
        assert!(short.lines().nth(2).unwrap().starts_with("Usage: flagmeter"), "{path:?}:\n{short}");
        assert!(lines(&short) <= 30, "{path:?}:\n{short}");
    }
    assert!(help(&[], "--help").contains("Examples:\n"), "{}", help(&[], "--help"));
}

#[test]
fn every_command_that_prints_something_takes_json() {
    for path in commands(&[]).iter().filter(|path| is_leaf(path)) {
        // A shell reads its own language.
        let expected = path != &["completions"];
        assert_eq!(help(path, "-h").contains("      --json "), expected, "{path:?}");
    }
}

#[test]
fn a_shell_completes_commands_and_options() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = flagmeter(&["completions", shell]);
        assert!(output.status.success(), "{shell}: {}", stderr(&output));
        for word in ["confirm-sweep", "completions", "refused-sweeps"] {
            assert!(stdout(&output).contains(word), "{shell}: {word}");
        }
    }
    let script = format!(
        "{}\nCOMP_WORDS=(flagmeter tenants con); COMP_CWORD=2; _flagmeter flagmeter con tenants\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
        stdout(&flagmeter(&["completions", "bash"]))
    );
    let completed = Command::new("bash").args(["--norc", "-c", &script]).output().unwrap();
    assert_eq!(stdout(&completed), "confirm-sweep\n", "{}", stderr(&completed));
}

#[test]
fn a_mistake_on_the_command_line_is_answered_with_what_is_allowed() {
    for (arguments, expected) in [
        (&["tenant", "list"][..], "a similar subcommand exists: 'tenants'"),
        (&["usage"], "<TENANT>"),
        (&["usage", "acme", "--jsn"], "a similar argument exists: '--json'"),
        (&["audit", "acme"], "unexpected argument 'acme' found"),
        (&["tenants", "free", "acme"], "--confirm <TENANT>"),
        (&["tenants", "list", "--detached", "--refused-sweeps"], "cannot be used with"),
        (&["tenants", "confirm-sweep", "team-a", "--gone", "some"], "invalid digit found in string"),
        (&["completions", "tcsh"], "possible values: bash, elvish, fish, powershell, zsh"),
        (&["explain-scale", "--max", "3"], "--replay <FILE>"),
        (&["alerts", "test", "acme", "--wait", "9999"], "9999 is not in 0..=3600"),
        (&["lint"], "<FILE>..."),
        (&["lint", "--output", "json", "--json", "x"], "cannot be used with"),
    ] {
        let output = flagmeter(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(expected), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("--help"), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn a_setting_that_is_missing_or_wrong_is_named_with_what_it_must_be() {
    let with = |name: &str, value: &str, arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flagmeter"));
        command.args(arguments).env_clear().env(name, value).output().unwrap()
    };
    // Nobody listens at port 1.
    let (database, dead) = ("DATABASE_URL", "postgres://flagmeter:s3cret@127.0.0.1:1/flagmeter");
    let (queue, dead_queue) = ("VALKEY_URL", "redis://:s3cret@127.0.0.1:1");
    for (output, expected) in [
        (flagmeter(&["audit"]), "DATABASE_URL must be set"),
        (flagmeter(&["explain-scale"]), "VALKEY_URL must be set"),
        (with(database, "", &["audit"]), "DATABASE_URL must be set"),
        (
            with(database, "foo", &["audit"]),
            "DATABASE_URL must be a URL such as postgres://user:password@host:5432/database",
        ),
        (
            with(database, "mysql://s3cret@h/d", &["usage", "acme"]),
            "DATABASE_URL must be a URL such as postgres://",
        ),
        (
            with(queue, "foo", &["explain-scale"]),
            "VALKEY_URL must be a URL such as redis://user:password@host:6379",
        ),
        (
            with(database, dead, &["tenants", "list"]),
            "PostgreSQL does not answer at 127.0.0.1:1; is it running there",
        ),
        (with(database, dead, &["migrate"]), "PostgreSQL does not answer at 127.0.0.1:1"),
        (with(queue, dead_queue, &["explain-scale"]), "Valkey does not answer"),
    ] {
        assert_eq!(output.status.code(), Some(1), "{expected}: {}", stderr(&output));
        let said = stderr(&output);
        assert!(said.contains(expected), "{said}");
        assert!(!said.contains("s3cret"), "{said}");
    }
}
