//! The `everwhen` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    everwhen_server::cli::main()
}
