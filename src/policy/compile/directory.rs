//! The directory of endpoints, and the credentials for the upstream.

use super::super::bound::is_origin;
use super::super::config::{EndpointConfig, MasterConfig, StateConfig, UpstreamKeyConfig};
use super::super::directory::{Directory, Endpoint, Network};
use super::super::error::Problems;
use super::super::{Platform, Tree};
use super::{Document, Secrets, check_id, quoted};

pub(super) fn directory(
    document: &Document<'_>,
    tree: &Tree,
    platform: &Platform,
    problems: &mut Problems,
) -> Directory {
    let mut list: Vec<Endpoint> = Vec::new();
    for (path, config) in document.elements::<EndpointConfig>("endpoints", problems) {
        if !(1..=128).contains(&config.id.len())
            || !config.id.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
        {
            problems
                .add(format!("{path}.id"), "an endpoint's id is 1 to 128 visible characters without a comma");
        }
        if list.iter().any(|other| other.id == config.id) {
            problems.add(
                format!("{path}.id"),
                format!("{} stands among the endpoints already", quoted(&config.id)),
            );
        }
        list.extend(endpoint(config, tree, platform, &path, problems));
    }
    Directory::new(list)
}

fn endpoint(
    config: EndpointConfig,
    tree: &Tree,
    platform: &Platform,
    path: &str,
    problems: &mut Problems,
) -> Option<Endpoint> {
    for (name, _) in config.features.0.iter().filter(|(name, _)| !platform.knows_feature(name)) {
        problems.add(format!("{path}.features.{name}"), "not one of platform.features");
    }
    let is_empty = |list: &Option<Vec<String>>| list.as_ref().is_some_and(Vec::is_empty);
    if is_empty(&config.origins) || is_empty(&config.addresses) {
        problems
            .add(path, "an empty list of `origins` or `addresses` lets nobody in; leave it out to allow any");
    }
    for (index, _) in config.origins.iter().flatten().enumerate().filter(|(_, origin)| !is_origin(origin)) {
        problems.add(
            format!("{path}.origins[{index}]"),
            "expected an origin as browsers write it: `https://example.com`",
        );
    }
    let addresses = config.addresses.map(|list| {
        let networks = list.iter().enumerate().filter_map(|(index, text)| {
            let network = Network::parse(text);
            if network.is_none() {
                problems
                    .add(format!("{path}.addresses[{index}]"), "expected `203.0.113.7` or `203.0.113.0/24`");
            }
            network
        });
        networks.collect()
    });
    let owner = tree.team(&config.team);
    if owner.is_none() {
        problems.add(format!("{path}.team"), format!("{} is not one of teams", quoted(&config.team)));
    }
    Some(Endpoint {
        owner: owner?,
        id: config.id,
        name: config.name,
        app: config.app,
        features: config.features.0.into_iter().filter_map(|(name, on)| on.then_some(name)).collect(),
        is_archived: config.state == StateConfig::Archived,
        origins: config.origins,
        addresses,
    })
}

/// The credentials for the upstream by id; `None` where secrets are not to be looked at.
pub(super) fn upstream_keys(
    document: &Document<'_>,
    secrets: &Secrets<'_>,
    problems: &mut Problems,
    warnings: &mut Vec<String>,
) -> Vec<(String, Option<String>)> {
    let allow_inline = document.allows_inline_secrets();
    let mut keys: Vec<(String, Option<String>)> = Vec::new();
    for (path, config) in document.elements::<UpstreamKeyConfig>("upstream_keys", problems) {
        check_id(&config.id, &format!("{path}.id"), problems);
        if keys.iter().any(|(id, _)| *id == config.id) {
            problems.add(format!("{path}.id"), format!("`{}` stands here already", config.id));
        }
        let value = match &config.secret {
            MasterConfig::Inline(_) if !allow_inline => Err(super::keyring::NO_INLINE.into()),
            MasterConfig::Inline(text) => {
                warnings.push(format!(
                    "{path}: a secret stands in the policy itself and shows in the gateway's config dumps"
                ));
                Ok(Some(text.clone()))
            }
            MasterConfig::Env(name) => super::keyring::text_from_env(name, secrets, ""),
        };
        let is_sendable =
            |text: &String| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        match value {
            Ok(value) if value.as_ref().is_none_or(is_sendable) => keys.push((config.id, value)),
            Ok(_) => problems.add(format!("{path}.secret"), "expected visible ASCII without blanks"),
            Err(message) => problems.add(format!("{path}.secret"), message),
        }
    }
    keys
}
