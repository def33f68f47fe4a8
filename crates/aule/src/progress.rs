//! What a person sees while a build runs: a line a step on stderr, and a bar where stderr is a terminal.

use aule_build::Observer;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    io::{IsTerminal, Write},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Tells the story on stderr.
pub(crate) struct Story {
    bar: Option<ProgressBar>,
    drawn: Mutex<Option<Instant>>,
}

impl Story {
    /// A bar is shown only where stderr is a terminal.
    pub(crate) fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(8));
            bar.set_style(ProgressStyle::default_spinner());
            bar
        });
        Story { bar, drawn: Mutex::new(None) }
    }

    /// Writes a line, above the bar if there is one.
    pub(crate) fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(line)),
            None => say(line),
        }
    }

    /// Takes the bar away.
    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn say(line: &str) {
    // A closed stderr must not end a build.
    let _ = writeln!(std::io::stderr(), "{line}");
}

impl Observer for Story {
    fn step(&self, name: &str, cached: bool) {
        self.say(&format!("{:>9} {name}", if cached { "cached" } else { "done" }));
    }

    fn note(&self, message: &str) {
        self.say(&format!("{:>9} {message}", ""));
    }

    fn progress(&self, what: &'static str, done: u64, total: Option<u64>) {
        let Some(bar) = &self.bar else { return };
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        if drawn.is_some_and(|at| at.elapsed() < Duration::from_millis(100)) {
            return;
        }
        *drawn = Some(Instant::now());
        match total {
            Some(total) => {
                bar.set_length(total);
                let style = "{msg:>9} [{bar:40}] {bytes}/{total_bytes} {eta}";
                bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
            }
            None => bar.set_style(ProgressStyle::default_spinner()),
        }
        bar.set_message(what);
        bar.set_position(done);
    }
}
