//! A session store: who is logged in, until when. Sessions expire by themselves; using one prolongs
//! it; an index finds all sessions of a user, so that "log out everywhere" is one batch.
//!
//! `cargo run -p esker --example session_store`

use esker::{Durability, IndexDefinition, ManualClock, Options, Query, TypedKeyspace, WriteBatch};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Session {
    user: String,
    device: String,
}

const HALF_AN_HOUR: Duration = Duration::from_secs(30 * 60);

fn by_user() -> IndexDefinition {
    IndexDefinition::typed("by_user", 1, |_token: &String, session: &Session, keys| {
        keys.add(&session.user);
    })
}

fn sessions_of(
    sessions: &TypedKeyspace<String, Session>,
    user: &str,
) -> esker::Result<Vec<String>> {
    Query::new(sessions.keyspace())
        .index_equal("by_user", user)
        .rows()?
        .map(|row| esker::tuple::decode(row?.key()))
        .collect()
}

fn main() -> esker::Result<()> {
    let directory =
        std::env::temp_dir().join(format!("esker-session-store-{}", std::process::id()));
    // Wound by hand, so that half an hour passes at once.
    let clock = Arc::new(ManualClock::at_millis(1_800_000_000_000));
    let db = Options::new()
        .clock(clock.clone())
        .default_durability(Durability::Buffered)
        .index("sessions", by_user())
        .open(&directory)?;
    let sessions = db.typed_keyspace::<String, Session>("sessions")?;

    for (token, user, device) in [
        ("t-1", "ada", "laptop"),
        ("t-2", "ada", "phone"),
        ("t-3", "grace", "terminal"),
    ] {
        let session = Session {
            user: user.into(),
            device: device.into(),
        };
        sessions.put_with_ttl(&token.into(), &session, HALF_AN_HOUR)?;
    }
    assert_eq!(sessions_of(&sessions, "ada")?, ["t-1", "t-2"]);

    // Ada uses her laptop after twenty minutes; her phone lies there.
    clock.advance(Duration::from_secs(20 * 60));
    assert!(sessions.set_ttl("t-1", HALF_AN_HOUR)?);
    clock.advance(Duration::from_secs(15 * 60));
    assert_eq!(sessions_of(&sessions, "ada")?, ["t-1"]);
    assert_eq!(sessions.get("t-2")?, None);
    let left = sessions.ttl("t-1")?.expect("it has a time to live");
    println!(
        "ada's laptop stays logged in for {} minutes",
        left.as_secs() / 60
    );
    assert_eq!(left, Duration::from_secs(15 * 60));

    // Log out everywhere.
    let mut batch = WriteBatch::new();
    for token in sessions_of(&sessions, "ada")? {
        sessions.batch(&mut batch).delete(token.as_str());
    }
    db.write(batch)?;
    assert!(sessions_of(&sessions, "ada")?.is_empty());

    // What has expired is invisible anyhow; this frees its space now.
    let removed = db.cleanup_expired()?;
    println!("{removed} sessions had expired");
    assert_eq!((removed, sessions.count()?), (2, 0));
    db.close()?;
    std::fs::remove_dir_all(directory).ok();
    Ok(())
}
