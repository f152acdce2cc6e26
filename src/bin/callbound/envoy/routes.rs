//! What routes do to a chain: they switch filters on and off, and the most specific of them has the last word.

use serde_yaml_ng::Value;

use super::check::{Place, Report, flag, get, text};
use super::held::{BUFFER, Guard, is_switched_off};

impl Report<'_> {
    /// The routes of a chain with our filter, whether they stand in it or come on their own.
    pub(super) fn routes(&mut self, place: &Place, config: &Value, guard: &Guard) {
        let Some((name, Value::Sequence(hosts))) = get(config, "virtual_hosts") else { return };
        let place = place.member(name);
        for (index, host) in hosts.iter().enumerate() {
            let Some((name, Value::Sequence(routes))) = get(host, "routes") else { continue };
            let place = place.item(index).member(name);
            for (index, route) in routes.iter().enumerate() {
                self.route(&place.item(index), &[route, host, config], guard);
            }
        }
    }

    /// One route, with what stands around it: the most specific first.
    fn route(&mut self, place: &Place, levels: &[&Value], guard: &Guard) {
        let [route, ..] = levels else { return };
        if ["redirect", "direct_response"].iter().any(|answer| get(route, answer).is_some()) {
            return; // Nothing goes on.
        }
        let action = get(route, "route").map(|(_, action)| action);
        let weighted = action
            .and_then(|action| get(action, "weighted_clusters"))
            .and_then(|(_, weighted)| get(weighted, "clusters"));
        match weighted {
            Some((_, Value::Sequence(clusters))) => clusters.iter().for_each(|cluster| {
                let levels: Vec<&Value> = std::iter::once(cluster).chain(levels.iter().copied()).collect();
                self.destination(place, route, &levels, guard);
            }),
            _ => self.destination(place, route, levels, guard),
        }
    }

    fn destination(&mut self, place: &Place, route: &Value, levels: &[&Value], guard: &Guard) {
        if !is_on(levels, &guard.ours).unwrap_or(!guard.is_off) {
            if guard.is_off && self.known.is_enabled(&guard.ours) {
                self.warn(place, "nothing enables callbound here: the requests of this route are not judged");
            }
            return; // Where somebody takes it out, the place that does is a problem of its own.
        }
        let (buffer, is_off) =
            guard.buffer.as_ref().map_or((BUFFER, false), |(name, is_off)| (name, *is_off));
        // One that is disabled for all is a problem of the chain.
        let is_held = is_on(levels, buffer).unwrap_or(!is_off || !self.known.is_enabled(buffer));
        if guard.is_buffered == Some(true) && guard.buffer.is_some() && !is_held && !is_handshake(route) {
            self.at(place, "the buffer filter does not hold this route, and it is not for upgrades only, so headers of refused requests would reach the upstream; enable it, or match on the header `upgrade`");
        }
    }
}

/// Whether the routes switch a filter on or off; `None` where they say nothing of it.
fn is_on(levels: &[&Value], filter: &str) -> Option<bool> {
    levels.iter().find_map(|level| {
        let (_, overrides) = get(level, "typed_per_filter_config")?;
        overrides.get(filter).map(|config| !is_switched_off(config))
    })
}

/// Whether a route matches only what asks for an upgrade: the header is there, whatever it says.
fn is_handshake(route: &Value) -> bool {
    const MATCHES: [&str; 7] = [
        "present_match",
        "string_match",
        "exact_match",
        "safe_regex_match",
        "prefix_match",
        "suffix_match",
        "contains_match",
    ];
    let headers = get(route, "match").and_then(|(_, matched)| get(matched, "headers"));
    let Some((_, Value::Sequence(headers))) = headers else { return false };
    headers.iter().any(|header| {
        let is_asked = |kind: &&str| match *kind {
            "present_match" => flag(header, "present_match"),
            other => get(header, other).is_some(),
        };
        text(header, "name").is_some_and(|name| name.eq_ignore_ascii_case("upgrade"))
            && !flag(header, "invert_match")
            && !flag(header, "treat_missing_header_as_empty")
            && MATCHES.iter().any(is_asked)
    })
}
