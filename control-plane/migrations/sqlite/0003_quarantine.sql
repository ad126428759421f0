-- What a fleet is not served, because one of its proxies has rejected it: the last good message is served instead, or none.
CREATE TABLE quarantine (
    fleet   TEXT NOT NULL,
    form    TEXT NOT NULL,
    type    TEXT NOT NULL,
    name    TEXT NOT NULL,
    version TEXT NOT NULL,
    good    BLOB,
    cause   TEXT NOT NULL,
    PRIMARY KEY (fleet, form, type, name)
) STRICT;
