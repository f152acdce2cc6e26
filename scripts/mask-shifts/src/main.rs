//! `callbound-mask-shifts MODULE OUTPUT`: the last step of the module's build. The library has the reason.

use std::io::Write as _;
use std::process::ExitCode;
use std::{env, fs, io};

use callbound_mask_shifts::{count_unmasked, mask};

const USAGE: &str = "usage: callbound-mask-shifts MODULE OUTPUT";

fn main() -> ExitCode {
    // A closed output is no reason to fail.
    match run(env::args().skip(1)) {
        Ok(report) => {
            let _ = writeln!(io::stdout(), "{report}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            let _ = writeln!(io::stderr(), "callbound-mask-shifts: {problem}");
            ExitCode::from(2)
        }
    }
}

/// Masks a module and returns the line to print. Writes no output in which a shift has no mask.
fn run(mut arguments: impl Iterator<Item = String>) -> Result<String, String> {
    let (Some(input), Some(output), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        return Err(USAGE.to_owned());
    };
    let module = fs::read(&input).map_err(|error| format!("{input}: {error}"))?;
    let masked = mask(&module).map_err(|error| format!("{input}: {error}"))?;
    let left = count_unmasked(&masked.module).map_err(|error| format!("{input}, once masked: {error}"))?;
    if left > 0 {
        return Err(format!("{input}: {left} shifts without a mask in the output, expected none"));
    }
    fs::write(&output, &masked.module).map_err(|error| format!("{output}: {error}"))?;
    Ok(format!("{input}: {} shifts masked", masked.shifts))
}
