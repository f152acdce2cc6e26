//! Telephone numbers: which text is one, and which numbers need more than an ordinary permission.
//!
//! A number is canonical E.164 (ITU-T E.164: `+`, then at most fifteen digits of country code and
//! national number) or it is refused. Nothing is trimmed, unescaped or completed: a number repaired
//! for the check and forwarded in its first form would be judged once and dialled twice. So
//! ` +1...`, `tel:+1...`, `001...` and full-width digits are all the same to this file: malformed.
//!
//! Two facts about a number come from the tables written by `scripts/gen_numbers.py`: that it reaches
//! an emergency service somewhere, and that it costs the caller extra.
//!
//! Out of scope: who owns a number, whether it is in service, where the caller is (so every region's
//! emergency codes count), and whether a premium number may be called, which
//! is policy. An emergency number is always refused.

mod tables;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::RangeInclusive;

/// ITU-T E.164, 6.2: no international number has more digits, country code included.
const MAX_DIGITS: usize = 15;

/// +1 911 000 0000 to +1 911 999 9999: 911 and seven further digits in the North American plan. N11 is no area code
/// there, so no such number is assigned, but a switch that reacts to its first three digits would ring the
/// emergency centre. The tables cannot hold this rule: applied to every code it would refuse Delhi.
const NANP_911: RangeInclusive<u64> = 19_110_000_000..=19_119_999_999;

/// A canonical E.164 number (`^\+[1-9][0-9]{1,14}$`, ASCII bytes only), packed in a `u64` so that
/// equality is equality of the number.
///
/// The digits are read as one integer. The first is never 0, so no two numbers share an integer and
/// ranges of numbers are ranges of integers. `Display` writes the number out, for hashing it into a
/// lookup or writing it into a token; `Debug` and [`Number::masked`] do not, for everything a log sees.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number(u64);

/// Classification of a dialled text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialled {
    /// A canonical E.164 number that is no emergency number.
    Number(Number),
    /// An emergency number of some region: the bare code, or a `+` and the code, or a `+`, the region's
    /// calling code and the code. Never to be placed, for any credential.
    Emergency,
    /// Anything else. Never to be repaired.
    Malformed,
}

impl Number {
    /// Reads exactly `+` and 2 to 15 ASCII digits, the first not 0.
    ///
    /// Does not check for emergency numbers: `+911` is a number as far as E.164 goes. Use
    /// [`Dialled::read`] for a text that a client wants to dial.
    #[must_use]
    pub fn parse(text: &str) -> Option<Number> {
        let digits = text.strip_prefix('+')?.as_bytes();
        if !(2..=MAX_DIGITS).contains(&digits.len()) || digits.first() == Some(&b'0') {
            return None;
        }
        digits
            .iter()
            .try_fold(0_u64, |value, byte| match byte {
                b'0'..=b'9' => Some(value * 10 + u64::from(byte - b'0')), // below 10^15: no overflow
                _ => None,
            })
            .map(Number)
    }

    /// Returns whether this is an emergency number: exactly `+` and an emergency code of any region, or exactly
    /// a region's calling code and a code of its own, or +1 911 and seven digits more.
    ///
    /// Exactly, because longer numbers that begin alike are ordinary: +91 11 is Delhi, +81 11 Sapporo.
    /// Source: libphonenumber's short-number metadata ([`metadata_version`]), 933 and 988 added.
    #[must_use]
    pub fn is_emergency(self) -> bool {
        u32::try_from(self.0).is_ok_and(|n| tables::EMERGENCY_NUMBERS.binary_search(&n).is_ok())
            || NANP_911.contains(&self.0)
    }

    /// Returns whether a call to this number costs its caller extra: premium rate or shared cost in any
    /// region, +979 and +808, or a satellite or global network (+870, +878, +881, +882, +883).
    ///
    /// Source: libphonenumber's metadata ([`metadata_version`]). Regions sharing a calling code share
    /// the answer, and a trunk prefix left in (+44 0 906...) does not hide a number.
    #[must_use]
    pub fn is_premium(self) -> bool {
        let ranges = &tables::PREMIUM_RANGES;
        let next = ranges.partition_point(|packed| *unpack(*packed).end() < self.0);
        ranges.get(next).is_some_and(|packed| unpack(*packed).contains(&self.0))
    }

    /// Returns the number as logs may show it: at most the first four and the last two digits, at least
    /// four hidden. A number of four digits or fewer is hidden whole.
    #[must_use]
    pub fn masked(self) -> String {
        let digits = self.0.to_string();
        let (head, tail) = shown(digits.len());
        let hidden_until = digits.len() - tail; // `shown` never shows more than there is
        let mask = |(at, digit)| {
            if (head..hidden_until).contains(&at) { '*' } else { digit }
        };
        std::iter::once('+').chain(digits.chars().enumerate().map(mask)).collect()
    }
}

/// Unpacks a range: 48 bits of its first number and 12 of the count of further ones, both without as many
/// trailing zeros as the last 4 bits count.
fn unpack(packed: u64) -> RangeInclusive<u64> {
    let block = 10_u64.pow((packed & 0xf) as u32);
    let (first, more) = (packed >> 16, packed >> 4 & 0xfff);
    first * block..=(first + more + 1) * block - 1 // below 10^15: no overflow
}

/// Returns how many of a number's digits a log may show, at the front and at the end.
fn shown(digits: usize) -> (usize, usize) {
    let spare = digits.saturating_sub(4);
    let tail = spare.min(2);
    (4.min(spare - tail), tail)
}

impl Dialled {
    /// Classifies a text that a client wants to dial.
    #[must_use]
    pub fn read(text: &str) -> Dialled {
        // Also behind a plus: "+000" is no E.164 number, and still Australia's emergency code.
        let code = text.strip_prefix('+').unwrap_or(text);
        if tables::EMERGENCY_CODES.binary_search(&code).is_ok() {
            return Dialled::Emergency;
        }
        match Number::parse(text) {
            Some(number) if number.is_emergency() => Dialled::Emergency,
            Some(number) => Dialled::Number(number),
            None => Dialled::Malformed,
        }
    }
}

/// The whole number, `+` and digits. Not for logs.
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{}", self.0)
    }
}

/// Masked, so that a number inside a logged structure stays private.
impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Number({})", self.masked())
    }
}

/// The version of the libphonenumber metadata behind [`Number::is_emergency`] and
/// [`Number::is_premium`], such as `9.0.43`.
#[must_use]
pub fn metadata_version() -> &'static str {
    tables::METADATA_VERSION
}
