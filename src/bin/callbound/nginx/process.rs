//! Checks of the whole process: secrets in its environment, the memory its workers share, listeners.

use super::facts::Facts;
use super::report::{Report, Severity};
use super::source::Configuration;
use super::syntax::Directive;

const EVICTS: &str = "may drop what callbound remembers, so limits and uses begin anew; add `eviction=none`";
const NO_ZONE: &str = "no `shm_kv callbound SIZE eviction=none` in the block `wasm`: callbound would use a zone that may drop what it remembers; add it (16m)";
const MAYBE_NO_ZONE: &str = "no `shm_kv callbound SIZE eviction=none` in the block `wasm`: add it (16m) if the policy has limits, uses or revocations";
const VALUE_IN_FILE: &str =
    "has the secret itself in the configuration; write the name only, and set it in the environment";

impl Report {
    /// Checks what the workers need: their environment and the zone `callbound`.
    pub(super) fn check_process(&mut self, configuration: &Configuration, facts: &Facts) {
        self.check_secrets(configuration, facts);
        self.check_zone(configuration, facts);
    }

    fn check_secrets(&mut self, configuration: &Configuration, facts: &Facts) {
        let names = facts.policy.as_ref().map_or(&[][..], |facts| &facts.policy.secret_names);
        let name_of = |env: &Directive| env.arg(0).split('=').next().unwrap_or_default().to_owned();
        for name in names {
            match configuration.top("env").find(|env| name_of(env) == *name) {
                Some(env) if env.arg(0).contains('=') => self.warn(env, VALUE_IN_FILE),
                Some(_) => {}
                None => self.whole(
                    Severity::Error,
                    &configuration.name,
                    format!("no `env {name};`: the workers do not see this secret of the policy; add it"),
                ),
            }
        }
    }

    fn check_zone(&mut self, configuration: &Configuration, facts: &Facts) {
        let zone = configuration.wasm("shm_kv").find(|zone| zone.arg(0) == "callbound");
        let remembers = facts.policy.as_ref().map(|facts| facts.policy.remembers.here);
        match zone {
            Some(zone) if remembers != Some(false) && !zone.args.iter().any(|arg| arg == "eviction=none") => {
                self.error(zone, EVICTS);
            }
            None if remembers == Some(true) => self.whole(Severity::Error, &configuration.name, NO_ZONE),
            None if remembers.is_none() => {
                self.whole(Severity::Warning, &configuration.name, MAYBE_NO_ZONE);
            }
            _ => {}
        }
    }

    /// Reports the listeners; which addresses are right is not known here.
    pub(super) fn note_listeners(&mut self, configuration: &Configuration) {
        let servers = configuration.top("http").flat_map(Directive::inner);
        for server in servers.filter(|directive| directive.name == "server") {
            for listen in server.inner().iter().filter(|directive| directive.name == "listen") {
                self.add(Severity::Note, listen, "clients connect here; reported, not judged");
            }
        }
    }
}
