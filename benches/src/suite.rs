//! What a whole comparison consists of: pieces, each a run of every engine with some flags.
//!
//! Invariant: a piece's flags come before the user's, which therefore win (`--num 10000` makes any of
//! it short); rows are named for people here and nowhere else.

/// A run of each engine.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece {
    /// What it is called on the command line and in the names of files.
    pub name: &'static str,
    /// What its rows are called beside the verb; empty for the plain table.
    pub title: &'static str,
    /// Its flags.
    pub flags: &'static str,
    /// Engines that it is of no use for, or that cannot do it.
    pub without: &'static [&'static str],
    /// The most rounds: long pieces are steady enough.
    pub most_rounds: usize,
}

const ROUNDS: usize = usize::MAX;
/// Engines without a log-structured tree.
pub(crate) const TREES: &[&str] = &["redb", "lmdb"];

/// The comparison, in its order.
pub const PIECES: &[Piece] = &[
    Piece {
        name: "fills",
        title: "",
        flags: "--benchmarks fillseq,fillrandom,fillbatch",
        without: &[],
        most_rounds: ROUNDS,
    },
    Piece {
        name: "updates",
        title: "",
        flags: "--benchmarks overwrite,deleterandom",
        without: &[],
        most_rounds: ROUNDS,
    },
    Piece {
        name: "syncs",
        title: "",
        flags: "--benchmarks fillsync:duration=3,fillsync:threads=4:duration=3",
        without: &[],
        most_rounds: ROUNDS,
    },
    Piece {
        name: "reads",
        title: "",
        flags: "--benchmarks readrandom,readrandom:distribution=zipfian,readrandom:threads=2,\
                readmissing,multireadrandom,readseq,readreverse,readseq,readreverse,readseq,\
                readreverse,seekrandom,seekrandom:seek_nexts=100,readwhilewriting",
        without: &[],
        most_rounds: ROUNDS,
    },
    Piece {
        name: "ycsb",
        title: "",
        flags: "--benchmarks ycsba,ycsbb,ycsbc,ycsbf,ycsbd,ycsbe",
        without: &[],
        most_rounds: ROUNDS,
    },
    Piece {
        name: "values16k",
        title: "16 KiB values",
        flags: "--num 50000 --value_size 16384 --benchmarks fillrandom,readrandom:reads=200000",
        without: &[],
        most_rounds: ROUNDS,
    },
    Piece {
        name: "cold",
        title: "from disk",
        flags: "--num 4000000 --benchmarks readcold:reads=20000",
        without: &[],
        most_rounds: ROUNDS,
    },
    Piece {
        name: "opens",
        title: "",
        flags: "--benchmarks open,openafterkill",
        without: &[],
        most_rounds: ROUNDS,
    },
    Piece {
        name: "random",
        title: "random keys",
        flags: SHAPES_RANDOM,
        without: &[],
        most_rounds: ROUNDS,
    },
    Piece {
        name: "url",
        title: "URLs",
        flags: SHAPES_URL,
        without: &[],
        most_rounds: ROUNDS,
    },
    Piece {
        name: "composite",
        title: "composite keys",
        flags: SHAPES_COMPOSITE,
        without: &[],
        most_rounds: ROUNDS,
    },
    Piece {
        name: "tiny",
        title: "1-byte keys",
        flags: "--num 128 --key_shape tiny --benchmarks \
                overwrite:duration=1,readrandom:reads=500000,readmissing:reads=500000,\
                seekrandom:reads=50000",
        without: &[],
        most_rounds: ROUNDS,
    },
    Piece {
        name: "huge",
        title: "1 KiB keys",
        flags: "--num 50000 --key_shape huge --benchmarks \
                fillrandom,readrandom:reads=200000,readmissing:reads=200000,\
                seekrandom:reads=20000",
        // The longest key that its usual build takes has 511 bytes.
        without: &["lmdb"],
        most_rounds: ROUNDS,
    },
    Piece {
        name: "sustained",
        title: "for a minute",
        flags: "--benchmarks overwrite:duration=60",
        without: TREES,
        most_rounds: 1,
    },
    Piece {
        name: "growth1",
        title: "1 million keys",
        flags: GROWTH_1,
        without: TREES,
        most_rounds: 1,
    },
    Piece {
        name: "growth10",
        title: "10 million keys",
        flags: GROWTH_10,
        without: TREES,
        most_rounds: 1,
    },
    Piece {
        name: "growth50",
        title: "50 million keys",
        flags: GROWTH_50,
        without: TREES,
        most_rounds: 1,
    },
];

macro_rules! shape {
    ($shape:literal) => {
        concat!(
            "--num 300000 --key_shape ",
            $shape,
            " --benchmarks fillrandom,readrandom,readmissing,seekrandom,readseq"
        )
    };
}
const SHAPES_RANDOM: &str = shape!("random");
const SHAPES_URL: &str = shape!("url");
const SHAPES_COMPOSITE: &str = shape!("composite");

macro_rules! growth {
    ($num:literal) => {
        concat!(
            "--num ",
            $num,
            " --benchmarks \
             fillrandom,overwrite:duration=20,readrandom:reads=500000,seekrandom:reads=50000"
        )
    };
}
const GROWTH_1: &str = growth!("1000000");
const GROWTH_10: &str = growth!("10000000");
const GROWTH_50: &str = growth!("50000000");

/// The piece called `name`.
///
/// # Errors
/// A sentence that says which there are.
pub fn find(name: &str) -> Result<&'static Piece, String> {
    PIECES
        .iter()
        .find(|piece| piece.name == name)
        .ok_or_else(|| {
            let known: Vec<&str> = PIECES.iter().map(|piece| piece.name).collect();
            format!("there is no piece {name:?}, only {}", known.join(", "))
        })
}

/// What a row is called: the step that it measures, and the piece that it belongs to.
#[must_use]
pub fn row_title(piece: &str, step: &str) -> String {
    let mut parts = step.split(':');
    let (verb, beside) = match parts.next().unwrap_or_default() {
        "readwhilewriting" => ("readwhilewriting, the reader", ""),
        "readwhilewriting.writer" => ("readwhilewriting, the writer", ""),
        "multireadrandom" => ("multi_get of 100", ""),
        "fillbatch" => ("fillbatch, batches of 100", ""),
        "readseq" => ("readseq (entries)", ""),
        "readreverse" => ("readreverse (entries)", ""),
        "open" => ("open after a clean close", ""),
        "openafterkill" => ("open after a kill, writes in the log", ""),
        "fillsync" if !step.contains("threads=") => ("fillsync", ", 1 thread"),
        "seekrandom" if !step.contains("seek_nexts=") => ("seekrandom", " + 10 next"),
        "readcold" => ("readrandom", ""),
        verb if verb.starts_with("ycsb") => return titled(piece, &ycsb(verb)),
        verb => (verb, ""),
    };
    let mut title = format!("{verb}{beside}");
    for part in parts {
        match part.split_once('=') {
            Some(("threads", threads)) => title += &format!(", {threads} threads"),
            Some(("seek_nexts", entries)) => title += &format!(" + {entries} next"),
            Some(("distribution", distribution)) => title += &format!(", {distribution}"),
            // How long it was measured is not what is measured.
            _ => {}
        }
    }
    titled(piece, &title)
}

fn titled(piece: &str, row: &str) -> String {
    let title = PIECES
        .iter()
        .find(|known| known.name == piece)
        .map_or("", |piece| piece.title);
    match title {
        "" => row.to_owned(),
        title => format!("{title}, {row}"),
    }
}

fn ycsb(verb: &str) -> String {
    format!("YCSB {}", verb.trim_start_matches("ycsb").to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Config};
    use clap::Parser;

    #[test]
    fn every_piece_is_a_run_that_can_be() {
        for piece in PIECES {
            let words = ["db_bench"]
                .into_iter()
                .chain(piece.flags.split_whitespace());
            let args = Args::try_parse_from(words).unwrap();
            let config = Config::from_args(&args).unwrap();
            assert!(!config.steps.is_empty());
            assert_eq!(find(piece.name), Ok(piece));
        }
        assert!(find("nothing").is_err());
    }

    #[test]
    fn rows_are_named_for_people() {
        for (piece, step, title) in [
            ("fills", "fillseq", "fillseq"),
            ("syncs", "fillsync:duration=3", "fillsync, 1 thread"),
            (
                "syncs",
                "fillsync:threads=4:duration=3",
                "fillsync, 4 threads",
            ),
            (
                "reads",
                "readrandom:distribution=zipfian",
                "readrandom, zipfian",
            ),
            ("reads", "seekrandom", "seekrandom + 10 next"),
            (
                "reads",
                "seekrandom:seek_nexts=100",
                "seekrandom + 100 next",
            ),
            ("ycsb", "ycsba", "YCSB A"),
            ("cold", "readcold:reads=20000", "from disk, readrandom"),
            ("", "overwrite", "overwrite"),
        ] {
            assert_eq!(row_title(piece, step), title);
        }
    }

    #[test]
    fn the_users_flags_win() {
        let words = "db_bench --num 50000 --value_size 16384 --num 10";
        let args = Args::try_parse_from(words.split(' ')).unwrap();
        assert_eq!((args.num, args.value_size), (10, 16384));
    }
}
