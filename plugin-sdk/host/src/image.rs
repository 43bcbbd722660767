//! Image: the bytes of a release in a sealed memfd, which nobody can change any more, this host included.
use rustix::{
    fs::{MemfdFlags, SealFlags},
    io::Errno,
    mm::{MapFlags, ProtFlags},
};
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    ptr::NonNull,
    sync::Arc,
};

/// Largest image in bytes.
pub const IMAGE_MAX: u64 = fleetswap_inspect::elf::ARTIFACT_MAX;
/// Bytes read from a file at a time.
const READ_CHUNK: usize = 256 * 1024;

/// Why bytes did not become an image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Fewer bytes or more than was signed. After one byte too many nothing more is taken.
    #[error("got {} bytes, the signed length is {wanted}", got_words(*.got, *.wanted))]
    Length {
        /// Bytes that came; for too many, the first count that was.
        got: u64,
        /// Signed length.
        wanted: u64,
    },
    /// The signed length is zero or beyond [`IMAGE_MAX`].
    #[error("a length of {0} bytes is not allowed (1 to {IMAGE_MAX})")]
    Bound(u64),
    /// The right count of other bytes.
    #[error("the bytes have SHA-256 {got}, signed is {wanted}")]
    Hash {
        /// Hash of the bytes, in hex.
        got: String,
        /// Signed hash, in hex.
        wanted: String,
    },
    /// This host could not hold or read the bytes.
    #[error("{what} failed")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The system's error.
        #[source]
        error: io::Error,
    },
}

impl ImageError {
    /// Stable code; each has a page in `docs/errors/`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Length { .. } | Self::Bound(_) => "ARTIFACT_LENGTH",
            Self::Hash { .. } => "ARTIFACT_HASH",
            Self::Io { .. } => "IMAGE_IO",
        }
    }

    /// A step of this host that failed.
    fn io(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| Self::Io { what, error }
    }
}

/// The count that came, as words: past the signed length nothing was counted.
fn got_words(got: u64, wanted: u64) -> String {
    if got > wanted { format!("at least {got}") } else { got.to_string() }
}

/// Takes the bytes of an image, hashing them as they come.
#[derive(Debug)]
pub struct ImageWriter {
    file: File,
    hash: Sha256,
    length: u64,
    written: u64,
}

impl ImageWriter {
    /// Starts an image of exactly `length` bytes.
    ///
    /// # Errors
    /// A length of zero or beyond [`IMAGE_MAX`]; no memfd to be had.
    pub fn new(length: u64) -> Result<Self, ImageError> {
        if length == 0 || length > IMAGE_MAX {
            return Err(ImageError::Bound(length));
        }
        let file = File::from(create().map_err(|e| ImageError::io("memfd_create")(e.into()))?);
        Ok(Self { file, hash: Sha256::new(), length, written: 0 })
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// More bytes than the length; no memory.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        if bytes.len() as u64 > self.length - self.written {
            return Err(ImageError::Length { got: self.length + 1, wanted: self.length });
        }
        self.file.write_all(bytes).map_err(ImageError::io("writing the image"))?;
        self.hash.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Seals the bytes, hashes them again from the sealed memory, and demands both hashes to be `sha256`.
    ///
    /// # Errors
    /// Too few bytes, another hash, or a system call that failed.
    pub fn seal(self, sha256: &[u8; 32]) -> Result<Image, ImageError> {
        if self.written != self.length {
            return Err(ImageError::Length { got: self.written, wanted: self.length });
        }
        check(&self.hash.finalize().into(), sha256)?;
        let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&self.file, seals)
            .map_err(|e| ImageError::io("sealing the image")(e.into()))?;
        let fd = OwnedFd::from(self.file);
        let length = usize::try_from(self.length).map_err(|_| ImageError::Bound(self.length))?;
        let map = Map::new(fd.as_fd(), length).map_err(ImageError::io("mapping the image"))?;
        check(&Sha256::digest(map.bytes()).into(), sha256)?;
        Ok(Image(Arc::new(Sealed { fd, map, sha256: *sha256 })))
    }
}

/// A memfd that takes seals. `NOEXEC_SEAL` came with Linux 6.3.
fn create() -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match rustix::fs::memfd_create("fleetswap-image", flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => rustix::fs::memfd_create("fleetswap-image", flags),
        other => other,
    }
}

fn check(got: &[u8; 32], wanted: &[u8; 32]) -> Result<(), ImageError> {
    if got == wanted {
        return Ok(());
    }
    Err(ImageError::Hash { got: hex::encode(got), wanted: hex::encode(wanted) })
}

/// Bytes that can't change any more, with their hash. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Image(Arc<Sealed>);

#[derive(Debug)]
struct Sealed {
    fd: OwnedFd,
    map: Map,
    sha256: [u8; 32],
}

impl Image {
    /// Copies a file into an image, and demands length and hash. Blocks; the file may change meanwhile, the
    /// image is what was hashed.
    ///
    /// # Errors
    /// As for [`ImageWriter`]; a file that can't be read.
    pub fn from_file(path: &Path, sha256: &[u8; 32], length: u64) -> Result<Self, ImageError> {
        let mut writer = ImageWriter::new(length)?;
        let mut file = File::open(path).map_err(ImageError::io("opening the artifact"))?;
        let mut chunk = vec![0; READ_CHUNK];
        loop {
            match file.read(&mut chunk).map_err(ImageError::io("reading the artifact"))? {
                0 => return writer.seal(sha256),
                count => writer.write(&chunk[..count])?,
            }
        }
    }

    /// The sealed bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.0.map.bytes()
    }

    /// SHA-256 of the bytes.
    #[must_use]
    pub fn sha256(&self) -> &[u8; 32] {
        &self.0.sha256
    }

    /// Count of bytes; never 0.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "an image is never empty")]
    pub fn len(&self) -> u64 {
        self.bytes().len() as u64
    }

    /// A descriptor of its own for a worker: read-only, with its own file position.
    pub(crate) fn reopen(&self) -> io::Result<OwnedFd> {
        use std::os::fd::AsRawFd;
        Ok(File::open(format!("/proc/self/fd/{}", self.0.fd.as_raw_fd()))?.into())
    }
}

/// A read-only mapping of a sealed memfd, or of a file of the system's.
#[derive(Debug)]
pub(crate) struct Map {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping is read-only and its bytes are sealed, so threads can only read what never changes.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    /// Maps the whole of a memfd that already has its seals. `length` is its size and above 0.
    fn new(sealed: BorrowedFd<'_>, length: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let start = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), length, ProtFlags::READ, MapFlags::PRIVATE, sealed, 0)?
        };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, length })
    }

    /// Maps the whole of a file that nobody writes to while a worker looks at it: a sealed image, or a library of the
    /// system, which this process has loaded as well.
    pub(crate) fn of_file(file: &File) -> io::Result<Self> {
        let length = usize::try_from(file.metadata()?.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        Self::new(file.as_fd(), length)
    }

    pub(crate) const fn bytes(&self) -> &[u8] {
        // SAFETY: `start` is a live mapping of `length` readable bytes until drop. The seals of an image forbid writing
        // and shrinking, and libraries of the system are replaced, not written to: the bytes neither change nor vanish.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping that `new` made; no slice of it outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests;
