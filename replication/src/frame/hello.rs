//! The handshake: who is at either end of a connection.

use bytes::BufMut;
pub use riverrun_storage::node::Start;
use uuid::Uuid;

use super::FrameError;
use super::reader::Reader;
use super::writer::Writer;

const MAGIC: [u8; 4] = *b"RRPN";
const VERSION: u16 = 1;
/// Most starts that a hello names: as many as a directory keeps.
pub(super) const MAX_STARTS: usize = riverrun_storage::node::MAX_STARTS;
/// Most bytes of a refusal's text.
pub(super) const MAX_TEXT_BYTES: usize = 512;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Messages and announcements, from the one who connected to the one who accepted.
    Link,
    /// Calls, and answers the other way.
    Calls,
}

/// Who somebody is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// What the connection is for.
    pub purpose: Purpose,
    /// The cluster; nil while it is not known.
    pub cluster_id: Uuid,
    /// The node.
    pub node: i32,
    /// Its data directory.
    pub directory_id: Uuid,
    /// Its life.
    pub incarnation: u64,
    /// The node that it means to reach; -1 is whoever is there. In an answer, the node that asked.
    pub meant: i32,
    /// Its last starts, at most 170; what is older is left out.
    pub starts: Vec<Start>,
}

/// What the accepting side says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// Who that is.
    pub hello: Hello,
    /// Why the connection is refused; `None` where it is not.
    pub refusal: Option<Refusal>,
}

/// Why a node is refused, for a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalCode {
    /// It speaks another version of the protocol.
    Version,
    /// It belongs to another cluster.
    Cluster,
    /// It means to reach another node.
    Node,
    /// Its directory was restored from a copy, or a later life of it was seen (R3).
    Restored,
    /// It is not, or no longer, a node of the cluster.
    Unknown,
    /// Not now: try again.
    Busy,
    /// Anything that this version has no name for.
    Other,
}

impl RefusalCode {
    fn to_u8(self) -> u8 {
        match self {
            Self::Version => 1,
            Self::Cluster => 2,
            Self::Node => 3,
            Self::Restored => 4,
            Self::Unknown => 5,
            Self::Busy => 6,
            Self::Other => 255,
        }
    }

    fn from_u8(byte: u8) -> Self {
        match byte {
            1 => Self::Version,
            2 => Self::Cluster,
            3 => Self::Node,
            4 => Self::Restored,
            5 => Self::Unknown,
            6 => Self::Busy,
            _ => Self::Other,
        }
    }
}

/// Why a node is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// For a program.
    pub code: RefusalCode,
    /// For a person. What is longer than 512 bytes is cut.
    pub text: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(code: RefusalCode, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }
}

pub(super) fn write(hello: &Hello, out: &mut Writer) {
    let out = out.head();
    out.put_slice(&MAGIC);
    out.put_u16_le(VERSION);
    out.put_u8(match hello.purpose {
        Purpose::Link => 1,
        Purpose::Calls => 2,
    });
    out.put_slice(hello.cluster_id.as_bytes());
    out.put_i32_le(hello.node);
    out.put_slice(hello.directory_id.as_bytes());
    out.put_u64_le(hello.incarnation);
    out.put_i32_le(hello.meant);
    let skip = hello.starts.len().saturating_sub(MAX_STARTS);
    let starts = hello.starts.get(skip..).unwrap_or_default();
    out.put_u16_le(u16::try_from(starts.len()).unwrap_or(0));
    for start in starts {
        out.put_u64_le(start.incarnation);
        out.put_u64_le(start.token);
    }
}

pub(super) fn read(input: &mut Reader) -> Result<Hello, FrameError> {
    if input.array("magic")? != MAGIC {
        return Err(FrameError::Magic);
    }
    let version = input.u16("version")?;
    if version != VERSION {
        return Err(FrameError::Version(version));
    }
    let purpose = match input.u8("purpose")? {
        1 => Purpose::Link,
        2 => Purpose::Calls,
        _ => return Err(FrameError::Value("purpose")),
    };
    let mut hello = Hello {
        purpose,
        cluster_id: input.uuid("cluster id")?,
        node: input.i32("node")?,
        directory_id: input.uuid("directory id")?,
        incarnation: input.u64("incarnation")?,
        meant: input.i32("node that is meant")?,
        starts: Vec::new(),
    };
    let count = usize::from(input.u16("number of starts")?);
    if count > MAX_STARTS {
        return Err(FrameError::Value("number of starts"));
    }
    hello.starts.reserve_exact(count);
    for _ in 0..count {
        hello.starts.push(Start {
            incarnation: input.u64("start")?,
            token: input.u64("start")?,
        });
    }
    Ok(hello)
}

pub(super) fn write_answer(answer: &Answered, out: &mut Writer) {
    write(&answer.hello, out);
    let (code, text) = match &answer.refusal {
        None => (0, ""),
        Some(refusal) => {
            let end = refusal.text.floor_char_boundary(MAX_TEXT_BYTES);
            let text = refusal.text.get(..end).unwrap_or_default();
            (refusal.code.to_u8(), text)
        }
    };
    let out = out.head();
    out.put_u8(code);
    out.put_u16_le(u16::try_from(text.len()).unwrap_or(0));
    out.put_slice(text.as_bytes());
}

pub(super) fn read_answer(input: &mut Reader) -> Result<Answered, FrameError> {
    let hello = read(input)?;
    let code = input.u8("code")?;
    let len = usize::from(input.u16("text")?);
    if len > MAX_TEXT_BYTES || (code == 0 && len > 0) {
        return Err(FrameError::Value("text"));
    }
    let text = input.slice(len, "text")?;
    let text = std::str::from_utf8(&text).map_err(|_| FrameError::Value("text"))?;
    let refusal = (code != 0).then(|| Refusal::new(RefusalCode::from_u8(code), text));
    Ok(Answered { hello, refusal })
}
