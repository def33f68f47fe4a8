//! One module a command.

mod build;
mod check;
mod lock;
mod lock_file;
mod look;
mod nodes;
mod plan;
mod recipe;
mod serve;
mod site;

use crate::{
    arguments::{Arguments, Command, SiteCommand},
    failure::Failure,
};

/// Runs the command that the arguments name.
pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { command, store, format } = arguments;
    match command {
        Command::Build(arguments) => build::run(arguments, store, format),
        Command::Plan(arguments) => plan::run(arguments, store, format),
        Command::Check(arguments) => check::run(arguments, store, format),
        Command::Lock(arguments) => lock::run(arguments, store, format),
        Command::Recipe(command) => recipe::run(command, format),
        Command::Serve { site } => serve::run(&site),
        Command::Site(SiteCommand::Check { site }) => site::check(&site, format),
        Command::Site(SiteCommand::Reload { site }) => site::reload(&site, format),
        Command::Nodes { server, node } => nodes::run(&server, node.as_deref(), format),
        other => look::run(other, store, format),
    }
}
