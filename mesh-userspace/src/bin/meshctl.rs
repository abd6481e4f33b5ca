//! The CLI: see `zerohop::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    zerohop::cli::meshctl(std::env::args_os()).into()
}
