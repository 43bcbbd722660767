//! The arguments of `#[plugin(...)]`.

use fleetswap_plugin_abi::{CONCURRENCY_MAX, NAME_MAX, VERSION_MAX};
use proc_macro2::{Span, TokenStream};
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprLit, Lit, LitStr, Meta, Result, Token};

/// Calls at once, unless the author says otherwise.
const CONCURRENCY_DEFAULT: u32 = 4;

/// What the author said about the plugin.
pub(crate) struct Args {
    pub(crate) name: LitStr,
    /// None: the version of the package.
    pub(crate) version: Option<LitStr>,
    pub(crate) concurrency: u32,
    pub(crate) background: bool,
    /// Implement `Plugin` by `Default`.
    pub(crate) default: bool,
}

impl Args {
    /// Reads the tokens between the brackets.
    pub(crate) fn parse(tokens: TokenStream) -> Result<Self> {
        let metas = Punctuated::<Meta, Token![,]>::parse_terminated.parse2(tokens)?;
        let mut draft = Draft::default();
        for meta in &metas {
            draft.take(meta)?;
        }
        draft.finish()
    }
}

/// Arguments while they are read.
#[derive(Default)]
struct Draft {
    seen: Vec<String>,
    name: Option<LitStr>,
    version: Option<LitStr>,
    concurrency: Option<u32>,
    background: bool,
    default: bool,
}

impl Draft {
    fn take(&mut self, meta: &Meta) -> Result<()> {
        let key = meta.path().get_ident().map(ToString::to_string).unwrap_or_default();
        if self.seen.contains(&key) {
            return Err(Error::new(meta.span(), format!("`{key}` is given twice")));
        }
        match key.as_str() {
            "name" => self.name = Some(plugin_name(meta)?),
            "version" => self.version = Some(version(meta)?),
            "concurrency" => self.concurrency = Some(concurrency(meta)?),
            "background" => self.background = flag(meta)?,
            "default" => self.default = flag(meta)?,
            _ => {
                let known = "`name`, `version`, `concurrency`, `background` and `default`";
                return Err(Error::new(meta.span(), format!("unknown argument; known are {known}")));
            }
        }
        self.seen.push(key);
        Ok(())
    }

    fn finish(self) -> Result<Args> {
        let missing =
            || Error::new(Span::call_site(), "the plugin needs a name: #[plugin(name = \"clock\")]");
        Ok(Args {
            name: self.name.ok_or_else(missing)?,
            version: self.version,
            concurrency: self.concurrency.unwrap_or(CONCURRENCY_DEFAULT),
            background: self.background,
            default: self.default,
        })
    }
}

fn plugin_name(meta: &Meta) -> Result<LitStr> {
    let name = text(meta)?;
    if is_name(&name.value(), NAME_MAX, |c| matches!(c, '_' | '-')) {
        return Ok(name);
    }
    let rule = format!("a plugin's name is a-z, then a-z, 0-9, `_` and `-`, at most {NAME_MAX} bytes");
    Err(Error::new(name.span(), rule))
}

/// Whether this is a letter `a-z`, then letters, digits and the extra characters, of at most `max` bytes.
pub(crate) fn is_name(name: &str, max: usize, extra: impl Fn(char) -> bool) -> bool {
    name.len() <= max
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || extra(c))
}

fn version(meta: &Meta) -> Result<LitStr> {
    let version = text(meta)?;
    semver::Version::parse(&version.value())
        .map_err(|error| Error::new(version.span(), format!("not a version like 1.2.3: {error}")))?;
    if version.value().len() > VERSION_MAX {
        return Err(Error::new(version.span(), format!("a version has at most {VERSION_MAX} bytes")));
    }
    Ok(version)
}

fn concurrency(meta: &Meta) -> Result<u32> {
    let number = match literal(meta)? {
        Lit::Int(number) => number.base10_parse().unwrap_or(0),
        _ => 0,
    };
    if (1..=CONCURRENCY_MAX).contains(&number) {
        return Ok(number);
    }
    Err(Error::new(meta.span(), format!("`concurrency` is a number from 1 to {CONCURRENCY_MAX}")))
}

/// Reads a word that stands alone.
pub(crate) fn flag(meta: &Meta) -> Result<bool> {
    meta.require_path_only().map(|_| true)
}

fn text(meta: &Meta) -> Result<LitStr> {
    match literal(meta)? {
        Lit::Str(text) => Ok(text),
        other => Err(Error::new(other.span(), "expected a string in quotes")),
    }
}

fn literal(meta: &Meta) -> Result<Lit> {
    match &meta.require_name_value()?.value {
        Expr::Lit(ExprLit { lit, .. }) => Ok(lit.clone()),
        other => Err(Error::new(other.span(), "expected a literal")),
    }
}
