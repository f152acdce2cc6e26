//! Masks the amounts of 32-bit shifts in a WebAssembly module.
//!
//! wasmtime before 4.0.1, 5.0.1 and 6.0.1 has [CVE-2023-26489], and APISIX brings wasmtime 0.38. On x86-64 it computes an
//! address `x << k` in more than 32 bits if `k` is a literal from 1 to 3, and reads or writes another place. `i32.shl` uses
//! only the low five bits of its amount. So `i32.const 31; i32.and` before the shift changes no result, but the amount
//! is no literal any more, and the engine computes the shift in 32 bits. A variable amount gets a mask too, because the
//! engine may know its value.
//!
//! No optimizer may run afterwards: it would remove the masks.
//!
//! [CVE-2023-26489]: https://nvd.nist.gov/vuln/detail/CVE-2023-26489

use std::error::Error;
use std::fmt::{self, Display};

use wasm_encoder::{CodeSection, Module, RawSection};
use wasmparser::{BinaryReaderError, Encoding, FunctionBody, Operator, Parser, Payload};

/// Encoded `i32.const 31; i32.and`.
const MASK: [u8; 3] = [0x41, 31, 0x71];
/// Largest literal amount that is compiled wrongly.
const MAX_WRONG_AMOUNT: i32 = 3;
/// Name prefixes of custom sections with offsets into the code, which masks would make wrong.
const OFFSET_SECTIONS: [&str; 3] = [".debug_", "metadata.code.", "reloc."];

/// Result of [`mask`].
pub struct Masked {
    /// Module with its masks, encoded.
    pub module: Vec<u8>,
    /// Number of masks that were inserted.
    pub shifts: usize,
}

/// Reason why a module cannot be masked.
#[derive(Debug)]
pub struct MaskError(String);

impl Display for MaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for MaskError {}

impl From<BinaryReaderError> for MaskError {
    fn from(error: BinaryReaderError) -> Self {
        Self(format!("unreadable WebAssembly module: {error}"))
    }
}

/// Masks the amount of every shift that needs it. The contents of all sections but the code keep their bytes.
///
/// # Errors
///
/// Refuses a file that is no module, and a module with sections that hold offsets into the code.
pub fn mask(module: &[u8]) -> Result<Masked, MaskError> {
    let mut masked = Module::new();
    let mut shifts = 0;
    for section in sections(module)? {
        match section {
            Section::Code(bodies) => {
                let mut code = CodeSection::new();
                for body in &bodies {
                    let offsets = unmasked(body)?;
                    code.raw(&with_masks(body, &offsets));
                    shifts += offsets.len();
                }
                masked.section(&code);
            }
            Section::Other(section) => {
                masked.section(&section);
            }
        }
    }
    Ok(Masked { module: masked.finish(), shifts })
}

/// Counts the shifts that need a mask and have none.
///
/// # Errors
///
/// As [`mask`].
pub fn count_unmasked(module: &[u8]) -> Result<usize, MaskError> {
    let mut count = 0;
    for section in sections(module)? {
        if let Section::Code(bodies) = section {
            for body in &bodies {
                count += unmasked(body)?.len();
            }
        }
    }
    Ok(count)
}

enum Section<'a> {
    Code(Vec<FunctionBody<'a>>),
    Other(RawSection<'a>),
}

fn sections(module: &[u8]) -> Result<Vec<Section<'_>>, MaskError> {
    if !module.starts_with(b"\0asm") {
        return Err(MaskError("not a WebAssembly module".to_owned()));
    }
    let mut sections = Vec::new();
    for payload in Parser::new(0).parse_all(module) {
        match payload? {
            Payload::CodeSectionStart { .. } => sections.push(Section::Code(Vec::new())),
            Payload::CodeSectionEntry(body) => {
                if let Some(Section::Code(bodies)) = sections.last_mut() {
                    bodies.push(body);
                }
            }
            other => {
                check(&other)?;
                if let Some((id, range)) = other.as_section() {
                    let data =
                        module.get(range).ok_or_else(|| MaskError("a section is incomplete".to_owned()))?;
                    sections.push(Section::Other(RawSection { id, data }));
                }
            }
        }
    }
    Ok(sections)
}

/// Refuses components and sections with offsets into the code.
fn check(payload: &Payload<'_>) -> Result<(), MaskError> {
    match payload {
        Payload::Version { encoding: Encoding::Component, .. } => {
            Err(MaskError("a WebAssembly component, expected a module".to_owned()))
        }
        Payload::CustomSection(custom)
            if OFFSET_SECTIONS.iter().any(|name| custom.name().starts_with(name)) =>
        {
            let name = custom.name();
            Err(MaskError(format!(
                "section `{name}` has offsets into the code, expected none: strip the module first"
            )))
        }
        _ => Ok(()),
    }
}

/// Amount of a shift, as the operators directly before it show it.
#[derive(Clone, Copy, PartialEq)]
enum Amount {
    Literal(i32),
    Masked,
    Unknown,
}

impl Amount {
    /// Returns the amount after one more operator. The `end` of a block leaves an unknown one.
    fn after(self, operator: &Operator<'_>) -> Self {
        match operator {
            Operator::I32Const { value } => Self::Literal(*value),
            Operator::I32And if self == Self::Literal(31) => Self::Masked,
            _ => Self::Unknown,
        }
    }

    fn needs_mask(self) -> bool {
        match self {
            Self::Literal(value) => value & 31 <= MAX_WRONG_AMOUNT,
            Self::Masked => false,
            Self::Unknown => true,
        }
    }
}

/// Returns the offsets, within a function body, of the shifts that need a mask and have none.
fn unmasked(body: &FunctionBody<'_>) -> Result<Vec<usize>, MaskError> {
    let mut offsets = Vec::new();
    let mut amount = Amount::Unknown;
    for operator in body.get_operators_reader()?.into_iter_with_offsets() {
        let (operator, offset) = operator?;
        if matches!(operator, Operator::I32Shl) && amount.needs_mask() {
            offsets.push(offset - body.range().start);
        }
        amount = amount.after(&operator);
    }
    Ok(offsets)
}

/// Returns the bytes of a function body with a mask before each of the offsets, which ascend.
fn with_masks(body: &FunctionBody<'_>, offsets: &[usize]) -> Vec<u8> {
    let mut masked = body.as_bytes().to_vec();
    for offset in offsets.iter().rev() {
        masked.splice(offset..offset, MASK);
    }
    masked
}
