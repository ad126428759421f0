//! The pages about command lines: the commands of `chancery`, and the settings of the programs.

use clap::{Arg, Command, CommandFactory};
use serde::Serialize;
use serde_json::Value;

use crate::table::{code, head, row};

/// The commands of `chancery`, each with its flags.
pub(crate) fn commands() -> String {
    let mut command = chancery::Cli::command();
    command.build();
    let mut page =
        "# The command line\n\nEvery command of `chancery`. What holds for all of them, and what they are for, is in \
                    [the page about the command](../cli.md).\n"
            .to_owned();
    for below in command.get_subcommands() {
        describe(below, &mut page);
    }
    page
}

fn describe(command: &Command, page: &mut String) {
    if command.get_name() == "help" || command.is_hide_set() {
        return;
    }
    let name = command.get_bin_name().unwrap_or_default();
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
    *page += &format!("\n## `{name}`\n\n{about}.\n");
    let arguments: Vec<_> = arguments(command).collect();
    if !arguments.is_empty() {
        *page += &format!("\n{}", head(["argument", "environment", "default", "meaning"]));
        for argument in arguments {
            let environment = argument.get_env().map(|name| name.to_string_lossy().into_owned());
            *page += &line(argument, &environment.unwrap_or_default());
        }
    }
    command.get_subcommands().for_each(|below| describe(below, page));
}

/// The settings of the programs that are services.
pub(crate) fn settings() -> String {
    let mut page =
        "# Settings\n\nEvery setting of the programs. A flag goes before the environment, that before the settings \
                    file (TOML; a key is the flag with `_` for `-`), that before the default. `--print-settings` shows \
                    what a program makes of all of them.\n"
            .to_owned();
    page += &program::<chancery_control_plane::settings::Flags>("Control plane");
    page += &program::<chancery_rate_limiter::settings::Flags>("Rate limiter");
    page += &program::<chancery_sidecar::settings::Flags>("Sidecar");
    page
}

fn program<F: CommandFactory + Default + Serialize>(title: &str) -> String {
    let mut command = F::command();
    command.build();
    let settings = serde_json::to_value(F::default()).unwrap();
    let mut chapter = format!("\n## {title}\n\n`{}`\n\n", command.get_name());
    chapter += &head(["flag", "environment", "default", "meaning"]);
    for argument in arguments(&command) {
        let own = argument.get_env().map(|name| name.to_string_lossy().into_owned());
        chapter += &line(argument, &own.or_else(|| variable(argument, &settings)).unwrap_or_default());
    }
    chapter
}

/// The variable of a setting; some flags are none.
fn variable(argument: &Arg, settings: &Value) -> Option<String> {
    let key = argument.get_id().as_str();
    settings.get(key)?;
    Some(format!("{}{}", chancery_runtime::settings::ENVIRONMENT_PREFIX, key.to_uppercase()))
}

fn arguments(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|argument| !["help", "version"].contains(&argument.get_id().as_str()))
}

fn line(argument: &Arg, environment: &str) -> String {
    let help = argument.get_long_help().or(argument.get_help()).map(ToString::to_string).unwrap_or_default();
    // What a default is made of is only known to the program, so its help says it in words.
    let (help, told) = match help.split_once(" [default: ") {
        Some((help, default)) => (help.to_owned(), default.trim_end_matches(']').to_owned()),
        None => (help, String::new()),
    };
    let takes_value = argument.get_num_args().is_some_and(|number| number.takes_values());
    let defaults: Vec<_> = argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let default = if takes_value && told.is_empty() { defaults.join(", ") } else { told };
    let choices: Vec<_> = argument.get_possible_values().iter().map(|value| code(value.get_name())).collect();
    let one_of =
        if takes_value && !choices.is_empty() { format!(". One of {}", choices.join(", ")) } else { String::new() };
    row([code(&shown(argument, takes_value)), code(environment), default, format!("{help}{one_of}")])
}

/// `-m, --message TEXT`, or `FILE` of what has no flag.
fn shown(argument: &Arg, takes_value: bool) -> String {
    let names = argument.get_value_names().map(|names| names.iter().map(|name| name.to_string()).collect::<Vec<_>>());
    let value = names.unwrap_or_else(|| vec![argument.get_id().as_str().to_uppercase()]).join(" ");
    let short = argument.get_short().map(|short| format!("-{short}"));
    let long = argument.get_long().map(|long| format!("--{long}"));
    let flags: Vec<_> = short.into_iter().chain(long).collect();
    match (flags.is_empty(), takes_value) {
        (true, _) => value,
        (false, true) => format!("{} {value}", flags.join(", ")),
        (false, false) => flags.join(", "),
    }
}
