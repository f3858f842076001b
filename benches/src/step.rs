//! A step of a run: a verb, and the flags that are different for it alone.
//!
//! `--benchmarks readrandom,readrandom:threads=2,seekrandom:seek_nexts=100` reads and seeks in one
//! database. Invariant: a step is named by the text that it was given as, which is what reports call
//! it; a flag that a step does not name is that of the run.

use crate::args::Config;
use crate::distribution::Distribution;
use crate::verb::Verb;
use clap::ValueEnum;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A verb with its own flags.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// What is done.
    pub verb: Verb,
    threads: Option<usize>,
    distribution: Option<Distribution>,
    seek_nexts: Option<u64>,
    batch: Option<u64>,
    reads: Option<u64>,
    duration: Option<Duration>,
}

impl Step {
    /// `verb` as the run's flags say.
    #[must_use]
    pub const fn plain(verb: Verb) -> Self {
        Self {
            verb,
            threads: None,
            distribution: None,
            seek_nexts: None,
            batch: None,
            reads: None,
            duration: None,
        }
    }

    /// The settings of `config` with those of the step in their place.
    #[must_use]
    pub fn settings(&self, config: &Config) -> Config {
        Config {
            threads: self.threads.unwrap_or(config.threads),
            distribution: self.distribution.or(config.distribution),
            seek_nexts: self.seek_nexts.unwrap_or(config.seek_nexts),
            batch: self.batch.or(config.batch),
            reads: self.reads.or(config.reads),
            duration: self.duration.or(config.duration),
            ..config.clone()
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let count = || match value.parse::<u64>() {
            Ok(count) if count > 0 || name == "seek_nexts" => Ok(count),
            _ => Err(format!("{name}={value}: a number of at least 1 is needed")),
        };
        match name {
            "threads" => match count()? {
                threads @ 1..=1024 => self.threads = Some(threads as usize),
                _ => return Err("threads must be between 1 and 1024".into()),
            },
            "distribution" => self.distribution = Some(Distribution::from_str(value, false)?),
            "seek_nexts" => self.seek_nexts = Some(count()?),
            "batch_size" => self.batch = Some(count()?),
            "reads" => self.reads = Some(count()?),
            "duration" => match value.parse::<f64>() {
                Ok(seconds) if seconds > 0.0 && seconds <= 1e7 => {
                    self.duration = Some(Duration::from_secs_f64(seconds));
                }
                _ => return Err("duration must be above 0 and at most 10000000 seconds".into()),
            },
            _ => {
                return Err(format!(
                    "a step has no {name:?} of its own, only threads, distribution, seek_nexts, \
                     batch_size, reads and duration"
                ));
            }
        }
        Ok(())
    }
}

impl FromStr for Step {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let verb = parts.next().unwrap_or_default();
        let mut step = Self::plain(Verb::from_str(verb, false).map_err(|_| {
            let known: Vec<String> = Verb::value_variants().iter().map(|v| v.name()).collect();
            format!("there is no verb {verb:?}, only {}", known.join(", "))
        })?);
        for part in parts {
            let (name, value) = part
                .split_once('=')
                .ok_or_else(|| format!("{part:?} is not of the form name=value"))?;
            step.set(name, value)?;
        }
        Ok(step)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.verb.name())?;
        if let Some(distribution) = self.distribution {
            let value = distribution.to_possible_value();
            let name = value.as_ref().map_or("", |value| value.get_name());
            write!(f, ":distribution={name}")?;
        }
        let counts = [
            ("threads", self.threads.map(|threads| threads as u64)),
            ("seek_nexts", self.seek_nexts),
            ("batch_size", self.batch),
            ("reads", self.reads),
        ];
        for (name, value) in counts {
            if let Some(value) = value {
                write!(f, ":{name}={value}")?;
            }
        }
        match self.duration {
            Some(duration) => write!(f, ":duration={}", duration.as_secs_f64()),
            None => Ok(()),
        }
    }
}

/// The verbs and what they do, for `--help`.
#[must_use]
pub fn help() -> String {
    let mut text = String::from(
        "Verbs (each may have flags of its own, as in readrandom:threads=2:distribution=zipfian;\n\
         threads, distribution, seek_nexts, batch_size, reads, duration):\n",
    );
    for verb in Verb::value_variants() {
        let value = verb.to_possible_value();
        let help = value.as_ref().and_then(|value| value.get_help());
        text.push_str(&format!(
            "  {:18} {}\n",
            verb.name(),
            help.map(ToString::to_string).unwrap_or_default()
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Args;
    use clap::Parser;

    #[test]
    fn a_step_is_named_as_it_was_given_and_changes_what_it_names() {
        let config = Config::from_args(&Args::parse_from(["db_bench", "--threads", "3"])).unwrap();
        for text in [
            "fillseq",
            "readrandom:distribution=zipfian",
            "readrandom:threads=2",
            "seekrandom:seek_nexts=0:reads=7",
            "fillsync:threads=4:duration=1.5",
            "filluniquerandom:batch_size=1000",
        ] {
            let step: Step = text.parse().unwrap();
            assert_eq!(step.to_string(), text);
        }
        let step: Step = "readrandom:reads=5".parse().unwrap();
        let settings = step.settings(&config);
        assert_eq!((settings.threads, settings.reads), (3, Some(5)));
        let step: Step = "readrandom:threads=2".parse().unwrap();
        assert_eq!(step.settings(&config).threads, 2);
    }

    #[test]
    fn what_no_step_can_have_is_refused() {
        for text in [
            "",
            "readfast",
            "readrandom:threads",
            "readrandom:threads=0",
            "readrandom:threads=2000",
            "readrandom:colour=red",
            "overwrite:duration=-1",
            "readrandom:distribution=even",
        ] {
            assert!(text.parse::<Step>().is_err(), "{text}");
        }
    }
}
