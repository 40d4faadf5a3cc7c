//! The one binary. Everything it does is in the library, where tests and embedders reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    oona::cli::main()
}
