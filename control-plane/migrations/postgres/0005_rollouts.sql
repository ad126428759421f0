-- How far a revision has come to the proxies of a fleet whose revisions are staged.
CREATE TABLE rollouts (
    fleet TEXT PRIMARY KEY,
    step  BIGINT NOT NULL,
    state TEXT NOT NULL
);
