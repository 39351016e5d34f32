//! Graceful upgrade: a daemon starts its successor, hands it what it listens on, and lets what runs with itself end.
//!
//! ```text
//!  predecessor                                   successor, whose standard input is the link
//!    starts it; listeners, the home's lock, the vault's key ──►  loads and checks everything, accepts nothing
//!                                        ◄── Ready
//!    accepts nothing more; Go ──►                accepts: who connected meanwhile waited in the backlog
//!                                        ◄── Serving
//!    answers each connection once more, ends when none is left
//!                                        ◄── Lock, Reload, Stop as long as it runs
//! ```
//!
//! At no moment do both accept, and at none does nobody listen. A successor that fails before it serves leaves a daemon
//! that goes on. The link is a pair of sockets that nobody else can open; what it carries is on no disk.

use std::io::{self, BufRead, BufReader, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use vault::Secret;
use zeroize::Zeroizing;

use crate::process::control;
use crate::process::server::ServeError;

/// The form of the first message; a successor of another form declines.
const FORM: u8 = 1;
/// The form, whether there is a key, and the key.
const OFFER_BYTES: usize = 2 + KEY_BYTES;
const KEY_BYTES: usize = 32;
/// The lock, two data listeners, the control socket, and the listener for figures.
const DESCRIPTORS_MAX: usize = 5;
/// Loading everything takes some hundred milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// What the other end does at once.
const PROMPT: Duration = Duration::from_secs(5);

/// What a daemon hands over.
pub(super) struct Offer<'a> {
    pub(super) lock: BorrowedFd<'a>,
    pub(super) listeners: Vec<BorrowedFd<'a>>,
    /// The key of the vault, unless it is locked.
    pub(super) data_key: Option<Secret<[u8; KEY_BYTES]>>,
}

/// What was handed over.
pub(super) struct Handed {
    pub(super) lock: OwnedFd,
    pub(super) listeners: Vec<OwnedFd>,
    pub(super) data_key: Option<Secret<[u8; KEY_BYTES]>>,
}

/// What a successor says.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    Ready,
    Failed { code: String, message: String, hint: Option<String> },
    Serving,
}

/// What a predecessor says after its offer.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Go,
}

/// Why there is no successor; the daemon goes on.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpgradeError {
    #[error("the new process said: {message}")]
    Declined { code: String, message: String, hint: Option<String> },
    #[error("the new process ended, or said nothing for too long")]
    Silent(#[source] io::Error),
    #[error("the new process cannot be started")]
    NotStarted(#[source] io::Error),
}

impl From<UpgradeError> for control::Reply {
    fn from(error: UpgradeError) -> Self {
        let message = error.to_string();
        let (code, hint) = match error {
            UpgradeError::Declined { code, hint, .. } => (code, hint),
            UpgradeError::Silent(_) => ("upgrade_failed".to_owned(), Some("see log/tokfence.log".to_owned())),
            UpgradeError::NotStarted(_) => ("upgrade_failed".to_owned(), None),
        };
        Self::Failed { code, message: format!("nothing is changed: {message}"), hint }
    }
}

/// The predecessor's view of its successor. One that does not get to serve is ended.
pub(super) struct Successor {
    link: Link,
    child: Option<Child>,
}

/// The socket between the two.
struct Link(BufReader<UnixStream>);

impl Successor {
    /// Starts a process and returns when it is ready to take over.
    pub(super) fn start(mut command: Command, offer: &Offer<'_>) -> Result<Self, UpgradeError> {
        let (ours, theirs) = UnixStream::pair().map_err(UpgradeError::NotStarted)?;
        let child = command.stdin(OwnedFd::from(theirs)).spawn().map_err(UpgradeError::NotStarted)?;
        // What holds the other end open in this process must go, or its silence would never be an end.
        drop(command);
        let mut successor = Self { link: Link(BufReader::new(ours)), child: Some(child) };
        send(successor.link.0.get_ref(), offer).map_err(UpgradeError::Silent)?;
        successor.hear(PATIENCE)?;
        Ok(successor)
    }

    /// Lets it serve, and returns when it does.
    pub(super) fn go(&mut self) -> Result<u32, UpgradeError> {
        self.link.say(&Word::Go).map_err(UpgradeError::Silent)?;
        self.hear(PROMPT)?;
        // It is its own master now. When it ends, somebody else learns it.
        Ok(self.child.take().map_or(0, |child| child.id()))
    }

    /// The next command that it passes on, or nothing where this version does not know it; `None` when it is gone.
    pub(super) fn next_command(&mut self) -> Option<Option<control::Command>> {
        match self.link.hear(None) {
            Ok(command) => Some(Some(command)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Some(None),
            Err(_) => None,
        }
    }

    /// Tells it that a command was done.
    pub(super) fn answer(&mut self, reply: &control::Reply) {
        // One that is gone needs no answer.
        let _ = self.link.say(reply);
    }

    fn hear(&mut self, patience: Duration) -> Result<(), UpgradeError> {
        match self.link.hear(Some(patience)).map_err(UpgradeError::Silent)? {
            Said::Ready | Said::Serving => Ok(()),
            Said::Failed { code, message, hint } => Err(UpgradeError::Declined { code, message, hint }),
        }
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // One that has ended already is as good as killed.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The successor's view of the daemon in whose place it comes.
pub(crate) struct Predecessor {
    pub(super) pid: u32,
    link: Link,
}

impl Predecessor {
    /// Takes what is handed over.
    pub(super) fn meet(link: UnixStream) -> Result<(Self, Handed), ServeError> {
        let handed = receive(&link).map_err(failed)?;
        let pid = std::os::unix::process::parent_id();
        Ok((Self { pid, link: Link(BufReader::new(link)) }, handed))
    }

    /// Says that everything is loaded, and returns when it accepts nothing more.
    pub(super) fn await_turn(&mut self) -> Result<(), ServeError> {
        self.link.say(&Said::Ready).map_err(failed)?;
        let Word::Go = self.link.hear(Some(PATIENCE)).map_err(failed)?;
        Ok(())
    }

    /// Says that requests are served.
    pub(super) fn tell_serving(&mut self) -> Result<(), ServeError> {
        self.link.say(&Said::Serving).map_err(failed)
    }

    /// Says why nothing is taken over.
    pub(super) fn decline(&mut self, error: &ServeError) {
        let (code, message, hint) = (error.code().to_owned(), error.to_string(), error.hint());
        // Who does not hear it sees this process end.
        let _ = self.link.say(&Said::Failed { code, message, hint });
    }

    /// Passes a command on to it, and returns when it is done. An error means that it is gone.
    pub(super) fn pass_on(&mut self, command: &control::Command) -> io::Result<control::Reply> {
        self.link.say(command)?;
        self.link.hear(Some(PATIENCE))
    }
}

fn failed(error: io::Error) -> ServeError {
    ServeError::Handover { reason: error.to_string() }
}

impl Link {
    fn say(&mut self, word: &impl Serialize) -> io::Result<()> {
        let mut line = Zeroizing::new(serde_json::to_vec(word)?);
        line.push(b'\n');
        self.0.get_mut().write_all(&line)
    }

    fn hear<T: DeserializeOwned>(&mut self, patience: Option<Duration>) -> io::Result<T> {
        self.0.get_ref().set_read_timeout(patience)?;
        let mut line = Zeroizing::new(String::new());
        if self.0.by_ref().take(control::REPLY_BYTES_MAX).read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_str(&line)?)
    }
}

fn send(link: &UnixStream, offer: &Offer<'_>) -> io::Result<()> {
    let mut bytes = Zeroizing::new([0; OFFER_BYTES]);
    bytes[0] = FORM;
    if let Some(key) = &offer.data_key {
        bytes[1] = 1;
        bytes[2..].copy_from_slice(key.expose());
    }
    let descriptors: Vec<_> = [offer.lock].into_iter().chain(offer.listeners.iter().copied()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("too many descriptors to hand over"));
    }
    sendmsg(link.as_fd(), &[IoSlice::new(&*bytes)], &mut control, SendFlags::empty())?;
    Ok(())
}

fn receive(link: &UnixStream) -> io::Result<Handed> {
    link.set_read_timeout(Some(PROMPT))?;
    let mut bytes = Zeroizing::new([0; OFFER_BYTES]);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got =
        recvmsg(link.as_fd(), &mut [IoSliceMut::new(&mut *bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if got.bytes != OFFER_BYTES || bytes[0] != FORM || descriptors.is_empty() {
        return Err(io::Error::other("what is handed over is not understood"));
    }
    let data_key = (bytes[1] == 1).then(|| {
        let mut key = [0; KEY_BYTES];
        key.copy_from_slice(&bytes[2..]);
        Secret::new(key)
    });
    let lock = descriptors.remove(0);
    Ok(Handed { lock, listeners: descriptors, data_key })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Seek, SeekFrom};

    fn offer<'a>(file: &'a File, listeners: Vec<BorrowedFd<'a>>, key: Option<[u8; 32]>) -> Offer<'a> {
        Offer { lock: file.as_fd(), listeners, data_key: key.map(Secret::new) }
    }

    #[test]
    fn what_is_offered_arrives_with_the_lock_it_stands_for() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"here").unwrap();
        file.lock().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        send(&ours, &offer(&file, vec![listener.as_fd()], Some([7; 32]))).unwrap();
        let handed = receive(&theirs).unwrap();
        assert_eq!(handed.data_key.unwrap().expose(), &[7; 32]);
        let there = std::net::TcpListener::from(handed.listeners.into_iter().next().unwrap());
        assert_eq!(there.local_addr().unwrap(), listener.local_addr().unwrap());
        let mut same = File::from(handed.lock);
        let mut text = String::new();
        same.seek(SeekFrom::Start(0)).unwrap();
        same.read_to_string(&mut text).unwrap();
        assert_eq!(text, "here");
    }

    #[test]
    fn a_locked_vault_hands_over_no_key() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        send(&ours, &offer(&file, Vec::new(), None)).unwrap();
        assert!(receive(&theirs).unwrap().data_key.is_none());
    }

    #[test]
    fn another_form_or_an_end_is_declined() {
        for bytes in [&b""[..], &[9; OFFER_BYTES], &[FORM; 3]] {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            ours.write_all(bytes).unwrap();
            drop(ours);
            assert!(receive(&theirs).is_err());
        }
    }

    /// A newer process may know commands that this one does not; those that it does know must still reach it.
    #[test]
    fn a_command_that_is_not_known_does_not_end_the_link() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut successor = Successor { link: Link(BufReader::new(ours)), child: None };
        theirs.write_all(b"{\"do\":\"something_new\"}\n{\"do\":\"flush\"}\n").unwrap();
        drop(theirs);
        assert!(matches!(successor.next_command(), Some(None)));
        assert!(matches!(successor.next_command(), Some(Some(control::Command::Flush))));
        assert!(successor.next_command().is_none());
    }

    #[test]
    fn a_process_that_ends_or_is_none_changes_nothing() {
        let file = tempfile::tempfile().unwrap();
        let started =
            Successor::start(Command::new("/nonexistent/tokfence"), &offer(&file, Vec::new(), None));
        assert!(matches!(started.err(), Some(UpgradeError::NotStarted(_))));
        let started = Successor::start(Command::new("true"), &offer(&file, Vec::new(), None));
        assert!(matches!(started.err(), Some(UpgradeError::Silent(_))));
    }
}
