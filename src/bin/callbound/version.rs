//! Versions of this tool and of a module file.

use std::fs;
use std::path::{Path, PathBuf};

use callbound::version::{ABI, POLICY_LANGUAGE, VERSION, stamp_of};
use clap::Args;
use serde_json::Value;

use crate::output::print;

/// Arguments of `callbound version`.
#[derive(Args)]
pub struct Version {
    /// A module (`callbound.wasm`) whose versions are printed as well
    #[arg(value_name = "MODULE")]
    module: Option<PathBuf>,
}

/// Prints one line for this tool and one for the module.
pub fn version(arguments: &Version) -> Result<(), String> {
    print(format_args!("callbound {VERSION}, policy language {POLICY_LANGUAGE}, proxy-wasm ABI {ABI}"))?;
    arguments.module.as_deref().map_or(Ok(()), print_module)
}

fn print_module(path: &Path) -> Result<(), String> {
    let named = |problem: &str| format!("{}: {problem}", path.display());
    let module = fs::read(path).map_err(|error| named(&error.to_string()))?;
    let stamp = stamp_of(&module)
        .ok_or_else(|| named("not a callbound module: no version found; expected a `callbound.wasm`"))?;
    let stamp: Value = serde_json::from_str(stamp).map_err(|error| named(&error.to_string()))?;
    let word = |name: &str| match stamp.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => "unknown".to_owned(),
    };
    let (version, language, abi) = (word("version"), word("policy_language"), word("abi"));
    let versions = format!("callbound {version}, policy language {language}, proxy-wasm ABI {abi}");
    print(format_args!("{}: {versions}", path.display()))
}
