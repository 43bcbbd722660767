//! Making the sockets: a stale one is removed only if nobody answers on it.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt, chown},
        net::UnixStream,
    },
    path::Path,
};

use fleetswap_proto::Explained;
use tokio::net::{TcpListener, UnixListener};

/// Largest `/etc/group` that is searched, in bytes.
const GROUP_FILE_MAX: u64 = 4 * 1024 * 1024;

/// A listening unix socket with these permission bits and this group.
///
/// The process's umask must keep others out until the bits are set.
///
/// # Errors
/// `SOCKET_IN_USE`: another process answers there. `SOCKET_FAILED`: anything else.
pub(crate) fn bind_unix(path: &Path, mode: u32, group: Option<&str>) -> Result<UnixListener, Explained> {
    let failed = |error: io::Error| failed(path, &error);
    make_folder(path).map_err(failed)?;
    clear(path)?;
    let listener = UnixListener::bind(path).map_err(failed)?;
    if let Some(group) = group {
        chown(path, None, Some(group_id(group)?)).map_err(failed)?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
    Ok(listener)
}

/// A listening TCP socket.
///
/// # Errors
/// `SOCKET_IN_USE` or `SOCKET_FAILED`.
pub(crate) async fn bind_tcp(address: SocketAddr) -> Result<TcpListener, Explained> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => in_use(&address.to_string()),
        _ => failed(Path::new(&address.to_string()), &error),
    })
}

fn make_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.exists() => {
            fs::create_dir_all(folder)?;
            fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
        }
        _ => Ok(()),
    }
}

/// Removes the socket of a process that is gone.
fn clear(path: &Path) -> Result<(), Explained> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(path, &error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(failed(path, &io::Error::other("a file that is no socket has this name")));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| failed(path, &error))
        }
        Err(error) => Err(failed(path, &error)),
        Ok(_) => Err(in_use(&path.display().to_string())),
    }
}

fn group_id(group: &str) -> Result<u32, Explained> {
    let unknown = |why: String| {
        Explained::new(
            "SOCKET_FAILED",
            format!("the group `{group}` of the front can't be used"),
            why,
            "make the group (groupadd), or correct `front.group`",
        )
    };
    let path = Path::new("/etc/group");
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() <= GROUP_FILE_MAX => {}
        Ok(_) => return Err(unknown("/etc/group is too large".to_owned())),
        Err(error) => return Err(unknown(error.to_string())),
    }
    let text = fs::read_to_string(path).map_err(|error| unknown(error.to_string()))?;
    find_group(&text, group).ok_or_else(|| unknown("/etc/group doesn't have it".to_owned()))
}

/// The number behind a name in the text of `/etc/group` (`NAME:PASSWORD:ID:MEMBERS`).
fn find_group(text: &str, group: &str) -> Option<u32> {
    let mut fields = text.lines().map(|line| line.split(':'));
    let mut found = fields.find_map(|mut fields| (fields.next() == Some(group)).then_some(fields))?;
    found.nth(1)?.parse().ok()
}

fn in_use(place: &str) -> Explained {
    Explained::new(
        "SOCKET_IN_USE",
        format!("another process answers on {place}"),
        "two agents can't have one address",
        "stop the other process, or give this agent another socket in its configuration",
    )
}

fn failed(place: &Path, error: &io::Error) -> Explained {
    Explained::new(
        "SOCKET_FAILED",
        format!("the socket {} can't be made", place.display()),
        error.to_string(),
        "see that the folder exists and that the agent may write to it, or give another path in the configuration",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_whole_name() {
        let text = "root:x:0:\nrooty:x:7:\ncallers:x:990:alice,bob\nbroken\n";
        assert_eq!(find_group(text, "callers"), Some(990));
        assert_eq!(find_group(text, "root"), Some(0));
        assert_eq!(find_group(text, "broken"), None);
        assert_eq!(find_group(text, "nobody"), None);
        assert_eq!(group_id("no-such-group-here").unwrap_err().code, "SOCKET_FAILED");
    }

    #[tokio::test]
    async fn a_socket_that_answers_is_left_alone_and_a_stale_one_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/front.sock");
        let first = bind_unix(&path, 0o660, None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(bind_unix(&path, 0o660, None).unwrap_err().code, "SOCKET_IN_USE");
        drop(first);
        bind_unix(&path, 0o600, None).unwrap();
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_never_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        fs::write(&path, "data").unwrap();
        assert_eq!(bind_unix(&path, 0o660, None).unwrap_err().code, "SOCKET_FAILED");
        assert_eq!(fs::read_to_string(&path).unwrap(), "data");
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let first = bind_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let error = bind_tcp(first.local_addr().unwrap()).await.unwrap_err();
        assert_eq!(error.code, "SOCKET_IN_USE");
    }
}
