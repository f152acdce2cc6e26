//! Tests on a real Envoy that need more than one request: policies that change under open connections, rejected
//! policies, failing upstreams, clients that disconnect, a browser, and the logs an operator reads.
#![allow(
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may fail loudly and know the time"
)]

mod stories;
mod support;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use support::gateway::Pieces;

type Story = fn(&Pieces) -> Result<(), String>;
type LongStory = fn() -> Result<Completion, Failed>;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(2));
    let on_envoy = |name: &str, story: Story| {
        Trial::ignorable_test(name, move || match Pieces::find() {
            Ok(pieces) => story(&pieces).map(|()| Completion::Completed).map_err(Failed::from),
            Err(skip) => skip.end(),
        })
    };
    let mut trials: Vec<Trial> = stories::ALL.iter().map(|(name, story)| on_envoy(name, *story)).collect();
    trials.extend(stories::WITH_MORE.iter().map(|(name, story)| Trial::ignorable_test(*name, story)));
    libtest_mimic::run(&arguments, trials).exit_code()
}
