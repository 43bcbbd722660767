//! Sockets that somebody else holds: a systemd socket unit, or whoever started the agent. Connections wait in their
//! backlog while the agent is started anew, so it neither makes nor removes them.
//!
//! They come as descriptors from 3 on, with `LISTEN_FDS`, `LISTEN_PID` and `LISTEN_FDNAMES` (systemd's protocol). One
//! that is named `front`, `control` or `tcp` is that one. With any other name a TCP socket is `tcp`, and a unix socket
//! is the one whose path the configuration has.

use std::{
    env, fs, io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::AsFd,
        unix::{fs::PermissionsExt, net::UnixListener},
    },
    path::{Path, PathBuf},
};

use fleetswap_proto::Explained;
use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;

/// Permission bits that the control socket may not have.
const OTHERS: u32 = 0o077;

/// The sockets that were handed over; those that were not are the agent's to make.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    pub(crate) front: Option<UnixListener>,
    pub(crate) control: Option<UnixListener>,
    pub(crate) tcp: Option<TcpListener>,
}

/// Where the configuration has its sockets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paths<'a> {
    pub(crate) front: &'a Path,
    pub(crate) control: &'a Path,
}

#[derive(Debug)]
enum Socket {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Inherited {
    /// Takes what this process was handed. From here on they are closed in every process that it starts.
    ///
    /// # Errors
    /// `SOCKET_UNKNOWN`, `SOCKET_OPEN` or `ADDRESS_NOT_LOOPBACK`.
    pub(crate) fn take(paths: Paths<'_>) -> Result<Self, Explained> {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut given = ListenFd::from_env();
        let mut inherited = Self::default();
        for number in 0..given.len() {
            let name = names.next().unwrap_or_default();
            let socket = take(&mut given, number).map_err(|error| unknown(name, &error.to_string()))?;
            if let Some(socket) = socket {
                inherited.sort(name, socket, paths)?;
            }
        }
        Ok(inherited)
    }

    fn sort(&mut self, name: &str, socket: Socket, paths: Paths<'_>) -> Result<(), Explained> {
        let twice = || unknown(name, "two sockets were handed over for the same purpose");
        match socket {
            Socket::Tcp(listener) if !matches!(name, "front" | "control") => {
                let address = listener.local_addr().map_err(|error| unknown(name, &error.to_string()))?;
                if !address.ip().is_loopback() {
                    return Err(not_loopback(address));
                }
                self.tcp.replace(listener).map_or(Ok(()), |_| Err(twice()))
            }
            Socket::Unix(listener) => {
                let path = path(&listener);
                let is_control =
                    name == "control" || (name != "front" && path.as_deref() == Some(paths.control));
                let is_front = name == "front" || path.as_deref() == Some(paths.front);
                if is_control {
                    closed_to_others(path.as_deref())?;
                    self.control.replace(listener).map_or(Ok(()), |_| Err(twice()))
                } else if is_front && name != "tcp" {
                    self.front.replace(listener).map_or(Ok(()), |_| Err(twice()))
                } else {
                    Err(unknown(name, "it is neither named nor at a path that the configuration has"))
                }
            }
            Socket::Tcp(_) => Err(unknown(name, "a socket of this name has to be a unix socket")),
        }
    }
}

fn take(given: &mut ListenFd, number: usize) -> io::Result<Option<Socket>> {
    let socket = match given.take_unix_listener(number) {
        Ok(listener) => listener.map(Socket::Unix),
        Err(_) => given.take_tcp_listener(number)?.map(Socket::Tcp),
    };
    let Some(socket) = socket else { return Ok(None) };
    let listens = match &socket {
        Socket::Unix(listener) => {
            listener.set_nonblocking(true)?;
            socket_acceptconn(listener.as_fd())?
        }
        Socket::Tcp(listener) => {
            listener.set_nonblocking(true)?;
            socket_acceptconn(listener.as_fd())?
        }
    };
    if listens { Ok(Some(socket)) } else { Err(io::Error::other("it does not listen (Accept=no is needed)")) }
}

fn path(listener: &UnixListener) -> Option<PathBuf> {
    listener.local_addr().ok()?.as_pathname().map(Path::to_owned)
}

/// Whoever can open the control socket controls the agent.
fn closed_to_others(path: Option<&Path>) -> Result<(), Explained> {
    let mode = path.and_then(|path| fs::metadata(path).ok()).map(|metadata| metadata.permissions().mode());
    if mode.is_some_and(|mode| mode & OTHERS == 0) {
        return Ok(());
    }
    let place = path.map_or_else(|| "without a path".to_owned(), |path| path.display().to_string());
    Err(Explained::new(
        "SOCKET_OPEN",
        format!("the control socket that was handed over ({place}) can be opened by other users"),
        "whoever opens it controls the agent, so only the agent's own user may",
        "set SocketMode=0600 in its socket unit",
    ))
}

fn unknown(name: &str, why: &str) -> Explained {
    Explained::new(
        "SOCKET_UNKNOWN",
        format!("the agent was handed a socket that it has no use for (`{}`)", name.escape_debug()),
        why,
        "set FileDescriptorName= to front, control or tcp in its socket unit, or remove it there",
    )
}

fn not_loopback(address: SocketAddr) -> Explained {
    Explained::new(
        "ADDRESS_NOT_LOOPBACK",
        format!("the TCP socket that was handed over listens on {address}, which is not a loopback address"),
        "this version has no TLS yet: beyond this machine everybody on the way could read and change what is sent",
        "set ListenStream= to a loopback address such as 127.0.0.1:8080 in its socket unit",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn unix(&self, name: &str, mode: u32) -> Socket {
            let path = self.0.path().join(name);
            let listener = UnixListener::bind(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            Socket::Unix(listener)
        }

        fn sort(&self, sockets: Vec<(&str, Socket)>) -> Result<Inherited, Explained> {
            let (front, control) = (self.0.path().join("f"), self.0.path().join("c"));
            let mut inherited = Inherited::default();
            for (name, socket) in sockets {
                inherited.sort(name, socket, Paths { front: &front, control: &control })?;
            }
            Ok(inherited)
        }
    }

    fn tcp() -> Socket {
        Socket::Tcp(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    #[test]
    fn a_socket_is_known_by_its_name_or_by_what_it_is() {
        let folder = Folder::new();
        let named =
            vec![("tcp", tcp()), ("control", folder.unix("a", 0o600)), ("front", folder.unix("b", 0o666))];
        let inherited = folder.sort(named).unwrap();
        assert!(inherited.front.is_some() && inherited.control.is_some() && inherited.tcp.is_some());
        let unnamed = vec![
            ("agent.socket", folder.unix("c", 0o600)),
            ("", folder.unix("f", 0o660)),
            ("agent.socket", tcp()),
        ];
        let inherited = folder.sort(unnamed).unwrap();
        assert_eq!(path(&inherited.front.unwrap()), Some(folder.0.path().join("f")));
        assert!(inherited.control.is_some() && inherited.tcp.is_some());
    }

    #[test]
    fn a_socket_without_a_use_and_two_for_one_purpose_are_refused() {
        let folder = Folder::new();
        let code = |sockets| folder.sort(sockets).unwrap_err().code;
        assert_eq!(code(vec![("other", folder.unix("x", 0o600))]), "SOCKET_UNKNOWN");
        assert_eq!(code(vec![("front", tcp())]), "SOCKET_UNKNOWN");
        assert_eq!(code(vec![("tcp", folder.unix("y", 0o600))]), "SOCKET_UNKNOWN");
        assert_eq!(code(vec![("", tcp()), ("tcp", tcp())]), "SOCKET_UNKNOWN");
    }

    #[test]
    fn a_control_socket_that_others_can_open_is_refused() {
        let folder = Folder::new();
        for (name, mode) in [("1", 0o666), ("2", 0o660), ("3", 0o604)] {
            let error = folder.sort(vec![("control", folder.unix(name, mode))]).unwrap_err();
            assert_eq!(error.code, "SOCKET_OPEN", "{mode:o}");
        }
    }

    /// Bound, and given back at once: nobody is reached.
    #[test]
    fn a_tcp_socket_beyond_this_machine_is_refused() {
        assert_eq!(not_loopback("192.0.2.1:80".parse().unwrap()).code, "ADDRESS_NOT_LOOPBACK");
    }
}
