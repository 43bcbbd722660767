//! Opening the database: the check of its format, the migrations, the settings of a connection.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::store::StoreError;

/// The newest schema that this build knows: the number of the last file in `migrations/`.
pub(super) const SCHEMA: i64 = 1;

/// How long a connection waits for another one's lock, in milliseconds. Only a person's `sqlite3` shell can hold one.
const BUSY_MS: u32 = 5_000;

mod embedded {
    //! The files of `migrations/`.
    refinery::embed_migrations!("migrations");
}

/// Opens for writing.
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    refuse_newer(path)?;
    let mut connection = Connection::open(path)?;
    connection.execute_batch(&format!(
        "PRAGMA auto_vacuum = INCREMENTAL;
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = ON;
         PRAGMA journal_size_limit = 67108864;
         PRAGMA busy_timeout = {BUSY_MS};"
    ))?;
    embedded::migrations::runner().run(&mut connection)?;
    // Rows that were pruned leave free pages; a bounded part goes back to the disk at every start.
    connection.execute_batch("PRAGMA incremental_vacuum(1000)")?;
    Ok(connection)
}

/// Opens for reading, beside the writer.
pub(super) fn reader(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.execute_batch(&format!("PRAGMA busy_timeout = {BUSY_MS};"))?;
    Ok(connection)
}

/// Reads the format version before anything is written.
fn refuse_newer(path: &Path) -> Result<(), StoreError> {
    if !path.exists() {
        return Ok(());
    }
    let found: i64 = reader(path)?.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > SCHEMA {
        return Err(StoreError::TooNew { path: path.to_owned(), found, known: SCHEMA });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_migration_is_the_schema_of_this_build_and_the_format_version_of_the_file() {
        let last =
            embedded::migrations::runner().get_migrations().iter().map(refinery::Migration::version).max();
        assert_eq!(last.map(i64::from), Some(SCHEMA));
        let dir = tempfile::tempdir().unwrap();
        let db = open(&dir.path().join("store.db")).unwrap();
        let stored: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        assert_eq!(stored, SCHEMA);
    }

    #[test]
    fn a_commit_waits_for_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let db = open(&dir.path().join("store.db")).unwrap();
        let mode: String = db.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
        let full: i64 = db.query_row("PRAGMA synchronous", [], |row| row.get(0)).unwrap();
        assert_eq!((mode.as_str(), full), ("wal", 2));
    }

    #[test]
    fn a_store_of_a_newer_controller_is_refused_and_keeps_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        let db = open(&path).unwrap();
        db.execute_batch("PRAGMA user_version = 99").unwrap();
        drop(db);
        let before = std::fs::read(&path).unwrap();
        let refused = open(&path).map(drop);
        assert!(matches!(refused, Err(StoreError::TooNew { found: 99, known: SCHEMA, .. })), "{refused:?}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }

    #[test]
    fn a_file_that_is_no_database_is_refused_and_keeps_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        let text = "not a database, but somebody's notes ".repeat(100);
        std::fs::write(&path, &text).unwrap();
        assert!(matches!(open(&path).map(drop), Err(StoreError::Database(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
}
