-- Which trace a revision was made in, as W3C's traceparent: other replicas go on with it. Of the newest that were recorded; nobody needs
-- older ones, and a program that does not know the table writes revisions as before.
CREATE TABLE revision_traces (
    revision    BIGINT NOT NULL PRIMARY KEY,
    traceparent TEXT   NOT NULL
);
