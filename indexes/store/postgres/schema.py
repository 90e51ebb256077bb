"""The schema of the PostgreSQL store, as numbered steps; a released step never changes.

store      one row: the store's uuid, the seq up to which the log was compacted, and in `home` the
           table that it was written to
images     id → image row; `have` maps kinds to the numbers of the spaces with its features
features   space number, image id → features
spaces     number, kind, fingerprint
log        seq → image id, numbers of the spaces touched
originals  image id → upload's bytes; `kept` orders them by age
previews   image id → JPEG
terms      search term of metadata or tags, image id
pending    kind, image id
claims     hash of key → id, sha256, expiry by the server's clock
leases     name → holder, expiry by the server's clock
marks      name → seq after which the log is needed, expiry by the server's clock
active     kind → fingerprint of the space that searches use
records    kind, key → value
next_id    a sequence: the next id that the store assigns
"""

from __future__ import annotations

import uuid

from indexes.store.postgres.connections import Connection
from models.errors import StoreUnavailable

STEPS: tuple[str, ...] = (
    """
    CREATE TABLE store (uuid text NOT NULL, tail bigint NOT NULL DEFAULT 0);
    CREATE TABLE images (
        id bigint PRIMARY KEY,
        generation bigint NOT NULL,
        sha256 text NOT NULL,
        width integer NOT NULL,
        height integer NOT NULL,
        source bytea NOT NULL,
        name bytea,
        created double precision NOT NULL,
        wanted jsonb NOT NULL,
        have jsonb NOT NULL,
        metadata json NOT NULL
    );
    CREATE INDEX images_name ON images (name) WHERE name IS NOT NULL;
    CREATE TABLE spaces (
        number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        kind text NOT NULL,
        fingerprint text NOT NULL,
        UNIQUE (kind, fingerprint)
    );
    CREATE TABLE features (
        space integer NOT NULL,
        image_id bigint NOT NULL,
        data bytea STORAGE EXTERNAL NOT NULL,
        PRIMARY KEY (space, image_id)
    );
    CREATE TABLE previews (image_id bigint PRIMARY KEY, data bytea STORAGE EXTERNAL NOT NULL);
    CREATE TABLE originals (
        image_id bigint PRIMARY KEY,
        kept bigint GENERATED ALWAYS AS IDENTITY,
        data bytea STORAGE EXTERNAL NOT NULL
    );
    CREATE TABLE terms (term bytea, image_id bigint, PRIMARY KEY (term, image_id));
    CREATE TABLE pending (kind text, image_id bigint, PRIMARY KEY (kind, image_id));
    CREATE TABLE log (
        seq bigint PRIMARY KEY, image_id bigint NOT NULL, spaces integer[] NOT NULL
    );
    CREATE TABLE marks (name text PRIMARY KEY, seq bigint NOT NULL, ends timestamptz NOT NULL);
    CREATE TABLE active (kind text PRIMARY KEY, fingerprint text NOT NULL);
    CREATE TABLE leases (name text PRIMARY KEY, holder text NOT NULL, ends timestamptz NOT NULL);
    CREATE SEQUENCE next_id MINVALUE 0 START 0;
    """,
    """
    ALTER TABLE images ADD COLUMN version bigint, ADD COLUMN upload_name text;
    CREATE INDEX images_sha256 ON images (sha256);
    CREATE TABLE claims (
        key bytea PRIMARY KEY, id bigint NOT NULL, sha256 text NOT NULL, ends timestamptz NOT NULL
    );
    CREATE INDEX claims_ends ON claims (ends);
    """,
    "ALTER TABLE store ADD COLUMN home text",
    """
    CREATE TABLE records (
        kind text COLLATE "C",
        key bytea,
        value bytea STORAGE EXTERNAL NOT NULL,
        PRIMARY KEY (kind, key)
    )
    """,
    "ALTER TABLE images ADD COLUMN facts json",
)

HOME = """
    SELECT store.home, here.home FROM store, (
        SELECT concat_ws('/', system_identifier, 'ambience.store'::regclass::oid) AS home
        FROM pg_control_system()
    ) AS here
"""
"""The server and table in which the row of `store` was written last, and those in which it is: they
differ in a restored backup."""

MIGRATION_LOCK = 0x616D6269656E6365
"""Key of the advisory lock under which one process at a time migrates the tables."""


def migrate(connection: Connection) -> None:
    """Migrate the tables in one transaction. Raises StoreUnavailable for a newer schema.

    A restored backup gets a new uuid, so that nothing which knew the old store takes it for that.
    """
    if _version(connection) != len(STEPS):
        _migrate(connection)
    was, now = connection.execute(HOME.encode()).fetchone() or ("", "")
    if was != now:
        new = uuid.uuid4().hex
        connection.execute(
            "UPDATE store SET uuid = CASE WHEN home IS NULL THEN uuid ELSE %s END, home = %s "
            "WHERE home IS DISTINCT FROM %s",
            [new, now, now],
        )


def _migrate(connection: Connection) -> None:
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [MIGRATION_LOCK])
        found = _version(connection)
        if found > len(STEPS):
            raise StoreUnavailable(
                f"the database has layout {found}, this version knows {len(STEPS)}: "
                "start the version of ambience that wrote it, or a newer one"
            )
        if found == 0:
            _check_encoding(connection)
            connection.execute("CREATE SCHEMA IF NOT EXISTS ambience")
            connection.execute("CREATE TABLE ambience.schema_version (version integer NOT NULL)")
            connection.execute("INSERT INTO schema_version VALUES (0)")
        for step in STEPS[found:]:
            # A step is text of this module and never comes from a user.
            connection.execute(step.encode())
        if found == 0:
            connection.execute("INSERT INTO store (uuid) VALUES (%s)", [uuid.uuid4().hex])
        connection.execute("UPDATE schema_version SET version = %s", [len(STEPS)])


def read_uuid(connection: Connection) -> str:
    row = connection.execute("SELECT uuid FROM store").fetchone()
    if row is None:
        raise StoreUnavailable("the database has lost its table `store`: restore a backup")
    return str(row[0])


def _version(connection: Connection) -> int:
    """The schema version; 0 for a database without tables."""
    # to_regclass would use this connection's cache and miss tables that another connection
    # has just created.
    there = "SELECT FROM pg_tables WHERE schemaname = 'ambience' AND tablename = 'schema_version'"
    if connection.execute(there.encode()).rowcount == 0:
        return 0
    row = connection.execute("SELECT version FROM ambience.schema_version").fetchone()
    return int(row[0]) if row else 0


def _check_encoding(connection: Connection) -> None:
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise StoreUnavailable(
            f"the database's encoding is {encoding}: create one with ENCODING 'UTF8'"
        )
