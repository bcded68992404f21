//! The `antlm` command: arguments in, words out. What it does is in the library; here is how it is asked for.

mod args;
mod commands;
mod output;
mod progress;
mod signals;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // clap prints its own messages: 0 after --help and --version, 2 after wrong usage.
    let cli = args::Cli::parse();
    match commands::run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS, // `antlm recipes | head -1`
        Err(error) => {
            output::print_error(&error);
            ExitCode::from(output::exit_code(&error))
        }
    }
}
