//! Mints client tokens: each requested value is proved to be within the key's present rights, or denied by name.

mod grant;
mod minted;
mod request;

use crate::policy::MintRule;
use crate::reason::Reason;

use super::context::DecisionContext;
use super::denial::Denial;
use super::rights::Rights;
use grant::Granter;
pub use minted::{BoundText, Minted};
pub use request::MintRequest;

/// Mints a token.
///
/// # Errors
///
/// A [`Denial`] naming the member that asks for more than the key may do now; [`Reason::MintUnavailable`] when there is
/// no randomness or no signing key.
pub fn mint(
    rule: &MintRule,
    rights: &Rights<'_>,
    request: &MintRequest,
    context: &DecisionContext<'_>,
) -> Result<Minted, Denial> {
    if rights.is_token() {
        return Err(Reason::CredentialNotAccepted.into());
    }
    let minted = Granter { rule, rights, request, context }.grant(&rule.family.ttl)?;
    minted.sign(&rule.family, rights)
}
