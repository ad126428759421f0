//! What is set about the sign-in of people, and every problem of it at once.

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use super::{issuer::IssuerUrl, rules::Rules};
use crate::access::{Grant, Role, Scope};

/// The most grants, and the most teams or scopes of one.
const MOST_GRANTS: usize = 1000;
const MOST: usize = 64;

/// The longest name of a group, claim, audience or scope, in bytes.
const LONGEST: usize = 512;

/// The sign-in of people. Without an issuer there is none.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OidcSettings {
    /// URL of the issuer, as its tokens name it.
    pub issuer: String,
    /// Whom its tokens have to be for, one of these; the first is the client id that `chancery login` uses.
    pub audience: Vec<String>,
    /// The claim with the groups; one that starts with `/` is a JSON pointer, as `/realm_access/roles`.
    pub groups_claim: String,
    /// The claim with the name that changes are recorded under; if it is not there, `preferred_username` or else `sub`.
    pub name_claim: String,
    /// What `chancery login` asks the issuer for.
    pub scopes: Vec<String>,
    /// The authorities that the issuer's certificate may be from, PEM; empty: those that the system trusts.
    pub ca_file: PathBuf,
    /// What groups may do.
    pub grants: Vec<GrantSetting>,
}

impl Default for OidcSettings {
    fn default() -> Self {
        let texts = |texts: &[&str]| texts.iter().copied().map(str::to_owned).collect();
        Self {
            issuer: String::new(),
            audience: Vec::new(),
            groups_claim: "groups".to_owned(),
            name_claim: "email".to_owned(),
            scopes: texts(&["openid", "profile", "email", "offline_access"]),
            ca_file: PathBuf::new(),
            grants: Vec::new(),
        }
    }
}

/// What a group may do: a table, or a text as `owner/payments/checkout=payments-developers`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "a grant is a table with group, role, teams and scopes, or a text as owner/payments=payments-developers"
)]
pub enum GrantSetting {
    /// `ROLE[/TEAM…]=GROUP`
    Text(String),
    /// A table.
    Table(GrantTable),
}

/// What a group may do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantTable {
    /// The group, as tokens name it.
    pub group: String,
    /// The role.
    pub role: String,
    /// The teams.
    #[serde(default)]
    pub teams: Vec<String>,
    /// The scopes; none: all that the role has.
    #[serde(default)]
    pub scopes: Vec<String>,
}

/// The flags, each under its own name.
#[derive(Clone, Debug, Default, clap::Args, Serialize)]
#[command(next_help_heading = "Sign-in of people")]
pub struct OidcFlags {
    /// URL of the OpenID Connect issuer whose tokens the API takes, as they name it [default: none]
    #[arg(id = "oidc_issuer", long = "oidc-issuer", value_name = "URL")]
    pub issuer: Option<String>,
    /// Whom its tokens have to be for, with commas between; the first is the client id of `chancery login` [default: none]
    #[arg(id = "oidc_audience", long = "oidc-audience", value_name = "IDS", value_delimiter = ',')]
    pub audience: Option<Vec<String>>,
    /// Claim with the groups of a person; one that starts with / is a JSON pointer [default: groups]
    #[arg(id = "oidc_groups_claim", long = "oidc-groups-claim", value_name = "CLAIM")]
    pub groups_claim: Option<String>,
    /// Claim with the name that changes are recorded under [default: email]
    #[arg(id = "oidc_name_claim", long = "oidc-name-claim", value_name = "CLAIM")]
    pub name_claim: Option<String>,
    /// What `chancery login` asks the issuer for, with commas between [default: openid,profile,email,offline_access]
    #[arg(id = "oidc_scopes", long = "oidc-scopes", value_name = "SCOPES", value_delimiter = ',')]
    pub scopes: Option<Vec<String>>,
    /// CA of the issuer's certificate, PEM [default: those that the system trusts]
    #[arg(id = "oidc_ca_file", long = "oidc-ca-file", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// What a group may do, as owner/payments=payments-developers; may be given several times [default: none]
    #[arg(id = "oidc_grants", long = "oidc-grant", value_name = "ROLE[/TEAM…]=GROUP")]
    pub grants: Option<Vec<String>>,
}

/// Settings of the sign-in that cannot be used, and all that is wrong with them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sign-in of people cannot be set up: {}", .0.join("; "))]
pub struct InvalidOidc(pub Vec<String>);

impl OidcSettings {
    /// The rules that follow from them; none if nobody is to sign in.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub(super) fn rules(&self) -> Result<Option<Rules>, InvalidOidc> {
        let Self { issuer, audience, groups_claim, name_claim, scopes, ca_file: _, grants } = self;
        if issuer.is_empty() && audience.is_empty() && grants.is_empty() {
            return Ok(None);
        }
        let mut problems = Vec::new();
        let url = match issuer.parse::<IssuerUrl>() {
            Ok(url) => Some(url),
            Err(_) if issuer.is_empty() => {
                problems.push("oidc.issuer is not set, and other settings of oidc are".to_owned());
                None
            }
            Err(error) => {
                problems.push(format!("oidc.issuer: {error}"));
                None
            }
        };
        if audience.is_empty() {
            problems.push("oidc.audience is empty: a token for anybody would be taken; name the client id".to_owned());
        }
        if grants.is_empty() {
            problems.push("oidc.grants is empty: nobody who signs in could do anything".to_owned());
        }
        if grants.len() > MOST_GRANTS {
            problems.push(format!("oidc.grants has {} entries; {MOST_GRANTS} are the most", grants.len()));
        }
        let listed = [("audience", audience), ("scopes", scopes)];
        let texts = listed.into_iter().flat_map(|(field, texts)| texts.iter().map(move |text| (field, text)));
        for (field, text) in texts.chain([("groups_claim", groups_claim), ("name_claim", name_claim)]) {
            if text.is_empty() || text.len() > LONGEST || text.contains(char::is_control) {
                problems
                    .push(format!("oidc.{field}: {text:?} must be 1 to {LONGEST} bytes without control characters"));
            }
        }
        let mut by_group: HashMap<String, Vec<Grant>> = HashMap::new();
        for (index, setting) in grants.iter().enumerate() {
            let mut wrong = |reason: String| problems.push(format!("oidc.grants[{index}]: {reason}"));
            if let Some((group, grant)) = setting.parse(&mut wrong) {
                by_group.entry(group).or_default().push(grant);
            }
        }
        match url {
            Some(issuer) if problems.is_empty() => Ok(Some(Rules {
                issuer,
                audience: audience.clone(),
                groups_claim: groups_claim.clone(),
                name_claim: name_claim.clone(),
                grants: by_group,
            })),
            _ => Err(InvalidOidc(problems)),
        }
    }
}

impl GrantSetting {
    /// Group and grant; none if `wrong` was told why not.
    fn parse(&self, wrong: &mut impl FnMut(String)) -> Option<(String, Grant)> {
        let table = match self {
            Self::Table(table) => table.clone(),
            Self::Text(text) => {
                let Some((granted, group)) = text.split_once('=') else {
                    wrong(format!("{text:?} must be ROLE[/TEAM…]=GROUP, as owner/payments=payments-developers"));
                    return None;
                };
                let mut parts = granted.split('/').map(str::to_owned);
                let role = parts.next().unwrap_or_default();
                GrantTable { group: group.to_owned(), role, teams: parts.collect(), scopes: Vec::new() }
            }
        };
        table.parse(wrong)
    }
}

impl GrantTable {
    fn parse(self, wrong: &mut impl FnMut(String)) -> Option<(String, Grant)> {
        let Self { group, role, teams, scopes } = self;
        let mut sound = true;
        let mut wrong = |reason: String| {
            sound = false;
            wrong(reason);
        };
        if group.is_empty() || group.len() > LONGEST {
            wrong(format!("group {group:?} must be 1 to {LONGEST} bytes"));
        }
        let known: Option<Role> = serde_json::from_value(role.as_str().into()).ok();
        match known {
            None => wrong(format!("role {role:?} must be viewer, owner, operator or admin")),
            Some(Role::Owner) if teams.is_empty() => wrong("an owner needs a team at least".to_owned()),
            Some(role @ (Role::Operator | Role::Admin)) if !teams.is_empty() => {
                wrong(format!("role {role} is for every team, so it takes none"));
            }
            Some(_) => {}
        }
        if teams.len().max(scopes.len()) > MOST {
            wrong(format!("{MOST} teams and {MOST} scopes are the most"));
        }
        let mut named = BTreeSet::new();
        for team in &teams {
            match team.parse() {
                Ok(team) => _ = named.insert(team),
                Err(error) => wrong(format!("team {team:?} {error}")),
            }
        }
        let mut narrowed = BTreeSet::new();
        for scope in &scopes {
            match scope.parse::<Scope>() {
                Ok(scope) => _ = narrowed.insert(scope),
                Err(error) => wrong(error.to_string()),
            }
        }
        let role = known.filter(|_| sound)?;
        Some((group, Grant { role, teams: named, scopes: narrowed }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn settings(value: Value) -> OidcSettings {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn nothing_set_is_no_sign_in() {
        assert!(OidcSettings::default().rules().unwrap().is_none());
    }

    #[test]
    fn a_grant_is_a_table_or_a_text() {
        let rules = settings(json!({ "issuer": "https://a.example.com", "audience": ["c"], "grants": [
            "owner/a/b=/people/devs=x", "admin=CN=root,OU=all", "viewer=all",
            { "group": "all", "role": "viewer", "teams": ["a"], "scopes": ["routes:read"] },
        ] }));
        let rules = rules.rules().unwrap().unwrap();
        let shown = |group: &str| {
            let grant = |grant: &Grant| {
                let teams: Vec<_> = grant.teams.iter().map(ToString::to_string).collect();
                format!("{} {} {}", grant.role, teams.join(","), grant.scopes.len())
            };
            rules.grants[group].iter().map(grant).collect::<Vec<_>>()
        };
        assert_eq!(shown("/people/devs=x"), ["owner a,b 0"]);
        assert_eq!(shown("CN=root,OU=all"), ["admin  0"]);
        assert_eq!(shown("all"), ["viewer  0", "viewer a 1"]);
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let wrong = settings(json!({ "issuer": "http://a.example.com", "groups_claim": "", "grants": [
            "boss=x", "owner=x", "operator/a=x", "owner/A=x", "viewer=", "viewer",
            { "group": "x", "role": "viewer", "scopes": ["everything"] },
        ] }));
        let InvalidOidc(problems) = wrong.rules().unwrap_err();
        let starts = [
            "oidc.issuer: \"http://a.example.com\" is not the URL",
            "oidc.audience is empty",
            "oidc.groups_claim: \"\" must be",
            "oidc.grants[0]: role \"boss\" must be",
            "oidc.grants[1]: an owner needs a team",
            "oidc.grants[2]: role operator is for every team",
            "oidc.grants[3]: team \"A\"",
            "oidc.grants[4]: group \"\" must be",
            "oidc.grants[5]: \"viewer\" must be ROLE",
            "oidc.grants[6]: \"everything\" is not a scope",
        ];
        assert_eq!(problems.len(), starts.len(), "{problems:#?}");
        for (problem, start) in problems.iter().zip(starts) {
            assert!(problem.starts_with(start), "{problem} does not begin with {start}");
        }
        let InvalidOidc(problems) = settings(json!({ "audience": ["a"] })).rules().unwrap_err();
        assert_eq!(problems.len(), 2, "{problems:?}");
        let many = vec!["viewer=x"; MOST_GRANTS + 1];
        let many = settings(json!({ "issuer": "https://a.example.com", "audience": ["a"], "grants": many }));
        assert_eq!(many.rules().unwrap_err().0.len(), 1);
    }
}
