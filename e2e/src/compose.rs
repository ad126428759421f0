//! A compose file run as plain processes: the same commands, settings and files, on free ports of this machine.
//!
//! What a container would see is laid out in a folder for each service: mounted files under their paths, folders for volumes. In
//! commands, variables and files two things are rewritten, and nothing else: paths of mounts lead into that folder, and addresses (`host:port`
//! in texts, `address` and `port` side by side in YAML and JSON) to the port that stands for it. A name of no service is left
//! as it is.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::port::free_port;

/// A compose file.
#[derive(Clone, Debug, Deserialize)]
pub struct Compose {
    /// Its services, by name.
    pub services: BTreeMap<String, Service>,
    /// Its secrets, by name.
    #[serde(default)]
    pub secrets: BTreeMap<String, Secret>,
    /// Its networks, by name.
    #[serde(default)]
    pub networks: BTreeMap<String, Value>,
    /// Its volumes, by name.
    #[serde(default)]
    pub volumes: BTreeMap<String, Value>,
}

/// A secret, which is a file.
#[derive(Clone, Debug, Deserialize)]
pub struct Secret {
    /// Where, from the folder of the compose file.
    pub file: String,
}

/// One service, as far as it matters without containers; lists in compose's short form.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Its image.
    pub image: String,
    /// Its program and arguments, or the arguments of the image's own program.
    pub command: Vec<String>,
    /// Variables.
    pub environment: BTreeMap<String, String>,
    /// Files with more variables.
    pub env_file: Vec<String>,
    /// `source:target[:ro]`.
    pub volumes: Vec<String>,
    /// Names of secrets, which are files in `/run/secrets`.
    pub secrets: Vec<String>,
    /// Folders in memory, perhaps with options behind a colon.
    pub tmpfs: Vec<String>,
    /// `service:NAME` where it shares the network of another.
    pub network_mode: Option<String>,
    /// A list, or a map with names that it has there besides.
    pub networks: Value,
    /// A list, or a map with conditions.
    pub depends_on: Value,
    /// How it is asked whether it is well.
    pub healthcheck: Value,
    /// `[address:]port:port`.
    pub ports: Vec<String>,
    /// All the rest.
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

impl Service {
    /// Whom it waits for.
    pub fn dependencies(&self) -> Vec<String> {
        let named = match &self.depends_on {
            Value::Object(all) => all.keys().cloned().collect(),
            Value::Array(all) => all.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        // It needs the network that it shares.
        named.into_iter().chain(self.shares().map(str::to_owned)).collect()
    }

    /// Whose network it shares.
    pub fn shares(&self) -> Option<&str> {
        self.network_mode.as_deref()?.strip_prefix("service:")
    }

    /// The URL that its healthcheck asks by `chancery health`.
    pub fn health_url(&self) -> Option<&str> {
        match self.healthcheck["test"].as_array()?.as_slice() {
            [kind, program, command, url]
                if (kind, program, command) == (&json!("CMD"), &json!("chancery"), &json!("health")) =>
            {
                url.as_str()
            }
            _ => None,
        }
    }

    /// `source` and `target` of each volume.
    pub fn mounts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.volumes.iter().filter_map(|volume| {
            let mut parts = volume.split(':');
            Some((parts.next()?, parts.next()?))
        })
    }
}

/// Reads YAML with the merges (`<<`) that compose files have.
pub fn read<T: DeserializeOwned>(file: &Path) -> Result<T> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let mut value: serde_norway::Value = serde_norway::from_str(&text).with_context(|| file.display().to_string())?;
    // What is merged may have merges of its own, which a pass leaves.
    loop {
        let before = value.clone();
        value.apply_merge()?;
        if value == before {
            break;
        }
    }
    serde_norway::from_value(value).with_context(|| file.display().to_string())
}

/// The documents of a YAML text.
pub fn documents(text: &str) -> Result<Vec<Value>> {
    let all = serde_norway::Deserializer::from_str(text).map(Value::deserialize).collect::<Result<Vec<_>, _>>()?;
    // A comment before the first `---` is an empty one.
    Ok(all.into_iter().filter(|document| !document.is_null()).collect())
}

impl Compose {
    /// With what a second file says on top: of that, volumes, folders in memory and how it is asked whether it is well.
    #[must_use]
    pub fn with(mut self, over: Self) -> Self {
        for (name, mut service) in over.services {
            let below = self.services.entry(name).or_default();
            let replaced: BTreeSet<String> = service.mounts().map(|(_, target)| target.to_owned()).collect();
            below.volumes.retain(|volume| volume.split(':').nth(1).is_none_or(|target| !replaced.contains(target)));
            below.volumes.append(&mut service.volumes);
            below.tmpfs.append(&mut service.tmpfs);
            if let Some(test) = service.healthcheck.get("test") {
                below.healthcheck["test"] = test.clone();
            }
        }
        self
    }

    /// Those services and whom they wait for, each after those.
    ///
    /// # Errors
    /// One is named that there is not, or they wait for each other.
    pub fn in_order(&self, wanted: &[&str]) -> Result<Vec<String>> {
        let mut ordered = Vec::new();
        for name in wanted {
            self.add(name, &mut ordered, &mut Vec::new())?;
        }
        Ok(ordered)
    }

    fn add(&self, name: &str, ordered: &mut Vec<String>, waiting: &mut Vec<String>) -> Result<()> {
        ensure!(!waiting.iter().any(|other| other == name), "{name} waits for itself: {waiting:?}");
        if ordered.iter().any(|other| other == name) {
            return Ok(());
        }
        waiting.push(name.to_owned());
        let service = self.services.get(name).with_context(|| format!("there is no service {name}"))?;
        for dependency in service.dependencies() {
            self.add(&dependency, ordered, waiting)?;
        }
        waiting.pop();
        ordered.push(name.to_owned());
        Ok(())
    }
}

/// What a service is run with.
#[derive(Clone, Debug)]
pub struct Laid {
    /// The folder that stands for `/`.
    pub root: PathBuf,
    /// Its command, rewritten.
    pub command: Vec<String>,
    /// Its variables, rewritten.
    pub environment: BTreeMap<String, String>,
}

/// Where everything of a compose file is on this machine.
#[derive(Debug)]
pub struct Place {
    /// The compose file.
    pub compose: Compose,
    /// The folder of the compose file.
    source: PathBuf,
    /// What stands for its `./secrets`.
    secrets: PathBuf,
    /// The folder of everything that is made.
    folder: PathBuf,
    /// Names that stand for a service.
    aliases: BTreeMap<String, String>,
    ports: RefCell<BTreeMap<(String, u16), u16>>,
}

impl Place {
    /// For compose files, each on top of those before, whose secrets are in `secrets`. `aliases` are names beside those of the services, and what they mean here.
    pub fn new(files: &[PathBuf], secrets: &Path, folder: &Path, aliases: &[(&str, &str)]) -> Result<Self> {
        let read_all = files.iter().map(|file| read::<Compose>(file)).collect::<Result<Vec<_>>>()?;
        let compose = read_all.into_iter().reduce(Compose::with).context("no file")?;
        let mut aliases: BTreeMap<String, String> =
            aliases.iter().map(|&(name, service)| (name.to_owned(), service.to_owned())).collect();
        for (name, service) in &compose.services {
            let host = aliases.get(name).cloned().or_else(|| service.shares().map(str::to_owned));
            aliases.insert(name.clone(), host.unwrap_or_else(|| name.clone()));
        }
        let source = files[0].parent().context("a file has a folder")?.to_owned();
        let (secrets, folder) = (secrets.to_owned(), folder.to_owned());
        Ok(Self { compose, source, secrets, folder, aliases, ports: RefCell::default() })
    }

    /// Says that a port of a service is this one.
    pub fn is_at(&self, service: &str, port: u16, here: u16) {
        self.ports.borrow_mut().insert((service.to_owned(), port), here);
    }

    /// The port that stands for one of a service.
    pub fn port(&self, service: &str, port: u16) -> u16 {
        let host = self.aliases.get(service).map_or(service, String::as_str);
        *self.ports.borrow_mut().entry((host.to_owned(), port)).or_insert_with(free_port)
    }

    /// Lays out a service.
    pub fn lay(&self, name: &str) -> Result<Laid> {
        let service = self.compose.services.get(name).with_context(|| format!("there is no service {name}"))?;
        let root = self.folder.join(name);
        fs::create_dir_all(&root)?;
        let mut targets = BTreeSet::new();
        let mut files = Vec::new();
        for secret in &service.secrets {
            let source =
                &self.compose.secrets.get(secret).with_context(|| format!("there is no secret {secret}"))?.file;
            files.push((self.from(source), format!("/run/secrets/{secret}")));
        }
        for (source, target) in service.mounts() {
            match self.compose.volumes.contains_key(source) {
                true => fs::create_dir_all(root.join(&target[1..]))?,
                false => files.push((self.from(source), target.to_owned())),
            }
            targets.insert(target.to_owned());
        }
        for folder in &service.tmpfs {
            let target = folder.split(':').next().unwrap_or_default();
            fs::create_dir_all(root.join(&target[1..]))?;
            targets.insert(target.to_owned());
        }
        targets.extend(files.iter().map(|(_, target)| target.clone()));
        let here = Here { place: self, name, root: &root, targets: &targets };
        for (source, target) in &files {
            here.copy(source, &root.join(&target[1..]))?;
        }
        let mut environment = service.environment.clone();
        for file in &service.env_file {
            let text = fs::read_to_string(self.from(file))?;
            let variables = text.lines().filter_map(|line| line.split_once('='));
            environment.extend(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
        environment.values_mut().for_each(|value| *value = here.text(value));
        let command = service.command.iter().map(|argument| here.text(argument)).collect();
        Ok(Laid { root, command, environment })
    }

    /// A URL that a service asks of itself, as it is here.
    pub fn url(&self, service: &str, url: &str) -> String {
        Here { place: self, name: service, root: Path::new("/"), targets: &BTreeSet::new() }.text(url)
    }

    fn from(&self, source: &str) -> PathBuf {
        match source.strip_prefix("./secrets/") {
            Some(secret) => self.secrets.join(secret),
            None => self.source.join(source),
        }
    }
}

/// Rewrites what one service sees.
struct Here<'a> {
    place: &'a Place,
    name: &'a str,
    root: &'a Path,
    targets: &'a BTreeSet<String>,
}

impl Here<'_> {
    fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        if from.is_dir() {
            for entry in fs::read_dir(from)? {
                let entry = entry?;
                self.copy(&entry.path(), &to.join(entry.file_name()))?;
            }
            return Ok(());
        }
        fs::create_dir_all(to.parent().context("a file has a folder")?)?;
        let text = fs::read_to_string(from).with_context(|| from.display().to_string())?;
        fs::write(to, self.document(&self.text(&text), from)?)?;
        Ok(())
    }

    /// The port that stands for `host:port` as this service means it.
    fn port(&self, host: &str, port: u16) -> Option<u16> {
        match host {
            "0.0.0.0" | "127.0.0.1" => Some(self.place.port(self.name, port)),
            _ => self.place.aliases.contains_key(host).then(|| self.place.port(host, port)),
        }
    }

    /// With its paths and each `host:port` rewritten.
    fn text(&self, text: &str) -> String {
        let part_of_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let mut out = String::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let new_word = !out.ends_with(part_of_name);
            let whole = |target: &&String| {
                rest.strip_prefix(target.as_str()).is_some_and(|rest| !rest.starts_with(part_of_name))
            };
            if let Some(target) = self.targets.iter().find(whole).filter(|_| new_word) {
                out.push_str(&self.root.join(&target[1..]).display().to_string());
                rest = &rest[target.len()..];
                continue;
            }
            let host = rest.find(|c| !part_of_name(c)).unwrap_or(rest.len());
            if new_word && let Some(after) = rest[host..].strip_prefix(':') {
                let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
                let here = after[..end].parse().ok().and_then(|port| self.port(&rest[..host], port));
                if let Some(here) = here {
                    out.push_str(&format!("127.0.0.1:{here}"));
                    rest = &after[end..];
                    continue;
                }
            }
            let step = host.max(first.len_utf8());
            out.push_str(&rest[..step]);
            rest = &rest[step..];
        }
        out
    }

    /// With each `address` beside a `port` rewritten, if it is a document.
    fn document(&self, text: &str, file: &Path) -> Result<String> {
        let kind = file.extension().and_then(|end| end.to_str()).unwrap_or_default();
        if !["json", "yaml", "yml"].contains(&kind) {
            return Ok(text.to_owned());
        }
        let before = documents(text).with_context(|| file.display().to_string())?;
        let mut after = before.clone();
        for document in &mut after {
            self.addresses(document);
        }
        if before == after {
            return Ok(text.to_owned());
        }
        Ok(after.iter().map(Value::to_string).collect::<Vec<_>>().join("\n---\n"))
    }

    fn addresses(&self, value: &mut Value) {
        match value {
            Value::Array(all) => all.iter_mut().for_each(|item| self.addresses(item)),
            Value::Object(fields) => {
                let host = fields.get("address").and_then(Value::as_str).unwrap_or_default().to_owned();
                for name in ["port", "port_value"] {
                    let port = fields.get(name).and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
                    if let Some(here) = port.and_then(|port| self.port(&host, port)) {
                        let resolved = fields.get("dns") == Some(&json!(true));
                        fields.insert(name.to_owned(), here.into());
                        fields.insert("address".to_owned(), if resolved { "localhost" } else { "127.0.0.1" }.into());
                    }
                }
                fields.values_mut().for_each(|field| self.addresses(field));
            }
            _ => {}
        }
    }
}

/// Address and path of a URL of plain HTTP.
pub fn address_of(url: &str) -> Result<(std::net::SocketAddr, String)> {
    let Some(rest) = url.strip_prefix("http://") else { bail!("{url} is no URL of http") };
    let (address, path) = rest.split_once('/').with_context(|| format!("{url} has no path"))?;
    Ok((address.parse().with_context(|| url.to_owned())?, format!("/{path}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(folder: &Path) -> Place {
        let file = folder.join("compose.yaml");
        let text = "
services:
  shop: { volumes: ['./conf:/etc/shop', './shop.toml:/etc/shop.toml'], depends_on: [store] }
  side: { network_mode: 'service:shop' }
  store: { image: store }
";
        fs::write(&file, text).unwrap();
        Place::new(&[file], folder, folder, &[("stores", "store")]).unwrap()
    }

    #[test]
    fn addresses_and_paths_are_rewritten_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path());
        let targets = ["/etc/shop", "/etc/shop.toml"].map(str::to_owned).into();
        let here = Here { place: &place, name: "side", root: Path::new("/root"), targets: &targets };
        let [store, own] = [place.port("store", 5432), place.port("shop", 80)];
        assert_eq!(place.port("side", 80), own);
        let cases = [
            ("postgres://a:b@store:5432/c", format!("postgres://a:b@127.0.0.1:{store}/c")),
            ("stores:5432, my-store:5432 store:x", format!("127.0.0.1:{store}, my-store:5432 store:x")),
            ("0.0.0.0:80", format!("127.0.0.1:{own}")),
            ("at 10:30 in /etc/shopping", "at 10:30 in /etc/shopping".to_owned()),
            ("/etc/shop.toml /etc/shop/a.toml", "/root/etc/shop.toml /root/etc/shop/a.toml".to_owned()),
        ];
        for (text, expected) in cases {
            assert_eq!(here.text(text), expected, "{text}");
        }
        let document = "{ address: store, port: 5432, dns: true }\n---\n{ address: 0.0.0.0, port: 80 }";
        let expected = format!(
            "{{\"address\":\"localhost\",\"dns\":true,\"port\":{store}}}\n---\n{{\"address\":\"127.0.0.1\",\"port\":{own}}}"
        );
        assert_eq!(here.document(document, Path::new("a.yaml")).unwrap(), expected);
        assert_eq!(here.document(document, Path::new("a.toml")).unwrap(), document);
    }

    #[test]
    fn a_second_file_replaces_what_is_mounted_at_the_same_place() {
        let folder = tempfile::tempdir().unwrap();
        let over = folder.path().join("over.yaml");
        let text =
            "services: { shop: { volumes: ['./other:/etc/shop:ro'], tmpfs: [/tmp], healthcheck: { test: [CMD, a] } } }";
        fs::write(&over, text).unwrap();
        let both = place(folder.path()).compose.with(read(&over).unwrap());
        let shop = &both.services["shop"];
        assert_eq!(shop.volumes, ["./shop.toml:/etc/shop.toml", "./other:/etc/shop:ro"]);
        assert_eq!((&shop.tmpfs[..], &shop.healthcheck["test"]), (&["/tmp".to_owned()][..], &json!(["CMD", "a"])));
        assert_eq!(shop.dependencies(), ["store"]);
    }

    #[test]
    fn services_come_after_those_they_wait_for() {
        let folder = tempfile::tempdir().unwrap();
        let compose = place(folder.path()).compose;
        assert_eq!(compose.in_order(&["side"]).unwrap(), ["store", "shop", "side"]);
        assert!(compose.in_order(&["till"]).is_err());
    }
}
