//! What this tool is, and what a module file is.

use std::fs;
use std::path::{Path, PathBuf};

use callbound::version::{ABI, POLICY_LANGUAGE, VERSION, stamp_of};
use clap::Args;
use serde_json::Value;

/// `callbound version`.
#[derive(Args)]
pub struct Version {
    /// A module (`callbound.wasm`) to look into as well
    #[arg(value_name = "MODULE")]
    module: Option<PathBuf>,
}

/// Prints one line for this tool and one for the module.
pub fn version(arguments: &Version) -> Result<(), String> {
    println!("callbound {VERSION}, policy language {POLICY_LANGUAGE}, proxy-wasm ABI {ABI}");
    arguments.module.as_deref().map_or(Ok(()), print_module)
}

fn print_module(path: &Path) -> Result<(), String> {
    let named = |problem: &str| format!("{}: {problem}", path.display());
    let module = fs::read(path).map_err(|error| named(&error.to_string()))?;
    let stamp = stamp_of(&module).ok_or_else(|| named("not a callbound module, or one without a version"))?;
    let stamp: Value = serde_json::from_str(stamp).map_err(|error| named(&error.to_string()))?;
    let word = |name: &str| match stamp.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => "unknown".to_owned(),
    };
    println!(
        "{}: callbound {}, policy language {}, proxy-wasm ABI {}",
        path.display(),
        word("version"),
        word("policy_language"),
        word("abi")
    );
    Ok(())
}
