//! A browser without a screen.

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, TcpStream},
    path::PathBuf,
    sync::atomic::Ordering,
    time::Duration,
};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

use crate::{Child, Command, Error, Node, Result, wait};

/// It starts within two seconds, if it has a processor.
const DEADLINE: Duration = Duration::from_secs(90);
/// How long a page runs by its own clock, which runs ahead while the page awaits nothing but time.
const RUNS_MS: u32 = 9_000;
/// What it says once it can be told what to do, before its port.
const LISTENS: &str = "DevTools listening on ws://127.0.0.1:";

/// What became of a page.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its elements at the end, as HTML.
    pub page: String,
    /// What its scripts said, and what the browser has to complain of.
    pub console: Vec<String>,
    /// Whom the browser asked for anything, as `host:port`.
    pub hosts: BTreeSet<String>,
}

impl Node {
    /// Opens a page in Chromium and lets it run for some seconds of its own time.
    ///
    /// # Errors
    /// If there is no Chromium, or it fails.
    pub fn browse(&self, url: &str) -> Result<Seen> {
        let (browser, directory) = self.chromium()?;
        let log = directory.join("log.json");
        let output = browser
            .arg(format!("--log-net-log={}", log.display()))
            .arg(format!("--virtual-time-budget={RUNS_MS}"))
            .args(["--enable-logging=stderr", "--dump-dom", url])
            .deadline(DEADLINE)
            .run()?;
        let said = output.stderr.lines();
        let console = said.filter(|line| line.contains("CONSOLE"));
        let console = console.map(str::to_owned).collect();
        let page = output.success()?;
        let text = fs::read_to_string(&log).map_err(Error::path("read", &log))?;
        let log: Value = serde_json::from_str(&text).map_err(odd)?;
        let events = log["events"].as_array().into_iter().flatten();
        let urls = events.filter_map(|event| event["params"]["url"].as_str());
        let hosts = urls.filter_map(|url| url.split_once("://")?.1.split('/').next());
        Ok(Seen {
            page,
            console,
            hosts: hosts.map(str::to_owned).collect(),
        })
    }

    /// Opens a page in Chromium, to be used.
    ///
    /// # Errors
    /// As [`Node::browse`].
    pub fn open_page(&self, url: &str) -> Result<Tab> {
        let (browser, _) = self.chromium()?;
        let mut browser = browser.args(["--remote-debugging-port=0", url]).spawn()?;
        let told = browser.await_stderr(DEADLINE, |line| line.contains(LISTENS))?;
        let after = told.split(LISTENS).nth(1).unwrap_or_default();
        let port = after.split('/').next().unwrap_or_default();
        let port: u16 = port.parse().map_err(odd)?;
        let list = format!("http://{}:{port}/json/list", Ipv4Addr::LOCALHOST);
        let address = wait::poll("the browser's page", DEADLINE, || {
            let told = self.fetch(&list).map_err(|error| error.to_string())?;
            let pages: Value = serde_json::from_str(&told).unwrap_or_default();
            let mut pages = pages.as_array().into_iter().flatten();
            let page = pages.find(|page| page["type"] == "page");
            let address = page.and_then(|page| page["webSocketDebuggerUrl"].as_str());
            address.map(str::to_owned).ok_or(told)
        })?;
        let connect = || {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
            stream.set_read_timeout(Some(DEADLINE))?;
            Ok(stream)
        };
        let stream = self.in_namespace(connect)?;
        let stream = stream.map_err(Error::io("connect to the browser"))?;
        let (socket, _) = tungstenite::client(address, stream).map_err(odd)?;
        Ok(Tab {
            _browser: browser,
            socket,
            asked: 0,
        })
    }

    /// A browser, and a directory of its own.
    fn chromium(&self) -> Result<(Command, PathBuf)> {
        let number = self.shared.sequence.fetch_add(1, Ordering::Relaxed);
        let directory = self.directory().join(format!("browser-{number}"));
        fs::create_dir_all(&directory).map_err(Error::path("create", &directory))?;
        let browser = self
            .command("chromium-headless-shell")
            .args(["--headless", "--no-sandbox", "--disable-gpu"])
            // It would call its maker.
            .arg("--disable-background-networking")
            .arg("--disable-component-update")
            .arg(format!("--user-data-dir={}", directory.display()));
        Ok((browser, directory))
    }
}

impl Seen {
    /// The text between `start` and the next `end`.
    ///
    /// # Panics
    /// If the page has none, with the page in the message.
    #[must_use]
    #[track_caller]
    pub fn between(&self, start: &str, end: &str) -> &str {
        let found = self.page.split_once(start);
        let found = found.and_then(|(_, after)| after.split_once(end));
        let Some((text, _)) = found else {
            panic!("no {start} with {end} in {}", self.page)
        };
        text
    }
}

/// A page that is open, by Chromium's DevTools protocol.
#[derive(Debug)]
pub struct Tab {
    _browser: Child,
    socket: WebSocket<TcpStream>,
    asked: u64,
}

impl Tab {
    /// What a script comes to, in the page.
    ///
    /// # Errors
    /// If it throws.
    pub fn evaluate(&mut self, script: &str) -> Result<Value> {
        let asked = json!({ "expression": script, "returnByValue": true });
        let mut told = self.ask("Runtime.evaluate", &asked)?;
        match told.get("exceptionDetails") {
            Some(thrown) => Err(odd(thrown)),
            None => Ok(told["result"]["value"].take()),
        }
    }

    /// Presses Enter and lets it go.
    ///
    /// # Errors
    /// If the browser is gone.
    pub fn press_enter(&mut self) -> Result<()> {
        for event in ["keyDown", "keyUp"] {
            let key = json!({
                "type": event, "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13,
            });
            self.ask("Input.dispatchKeyEvent", &key)?;
        }
        Ok(())
    }

    fn ask(&mut self, method: &str, parameters: &Value) -> Result<Value> {
        self.asked += 1;
        let asked = json!({ "id": self.asked, "method": method, "params": parameters });
        let asked = Message::Text(asked.to_string().into());
        self.socket.send(asked).map_err(odd)?;
        loop {
            let told = self.socket.read().map_err(odd)?;
            let told = told.into_text().map_err(odd)?;
            let mut told: Value = serde_json::from_str(&told).map_err(odd)?;
            // Events have no number.
            if told["id"] == self.asked {
                return Ok(told["result"].take());
            }
        }
    }
}

fn odd(cause: impl ToString) -> Error {
    Error::Malformed {
        what: "what the browser says".into(),
        cause: cause.to_string(),
    }
}
