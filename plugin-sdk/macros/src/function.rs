//! One `#[function]`: its marks, and what its signature says.

use fleetswap_plugin_abi::FUNCTION_NAME_MAX;
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{
    Attribute, Error, FnArg, GenericArgument, Ident, ImplItemFn, Meta, PathArguments, Result, ReturnType,
    Signature, Token, Type,
};

use crate::args::{flag, is_name};

/// A method that can be called from outside.
pub(crate) struct Function {
    pub(crate) name: Ident,
    pub(crate) idempotent: bool,
    pub(crate) probe_safe: bool,
    /// None: the method takes no input.
    pub(crate) input: Option<Type>,
    pub(crate) output: Type,
    /// The method takes a `Deadline` as its last argument.
    pub(crate) deadline: bool,
    /// Input and output are `Bytes`.
    pub(crate) raw: bool,
}

/// Takes `#[function]` off the method, if it is there, and reads it.
pub(crate) fn take(method: &mut ImplItemFn) -> Result<Option<Function>> {
    let Some(at) = method.attrs.iter().position(|attr| attr.path().is_ident("function")) else {
        return Ok(None);
    };
    let attribute = method.attrs.remove(at);
    if let Some(again) = method.attrs.iter().find(|attr| attr.path().is_ident("function")) {
        return Err(Error::new(again.span(), "`#[function]` is given twice"));
    }
    let (idempotent, probe_safe) = marks(&attribute)?;
    check_shape(&method.sig)?;
    let (input, deadline) = arguments(&method.sig)?;
    let output = output(&method.sig.output)?;
    let raw = rawness(&method.sig, input.as_ref(), &output)?;
    Ok(Some(Function {
        name: method.sig.ident.clone(),
        idempotent,
        probe_safe,
        input,
        output,
        deadline,
        raw,
    }))
}

fn marks(attribute: &Attribute) -> Result<(bool, bool)> {
    let (mut idempotent, mut probe_safe) = (false, false);
    if matches!(attribute.meta, Meta::Path(_)) {
        return Ok((false, false));
    }
    for meta in attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)? {
        if meta.path().is_ident("idempotent") {
            idempotent = flag(&meta)?;
        } else if meta.path().is_ident("probe_safe") {
            probe_safe = flag(&meta)?;
        } else {
            return Err(Error::new(meta.span(), "unknown mark; known are `idempotent` and `probe_safe`"));
        }
    }
    Ok((idempotent, probe_safe))
}

fn check_shape(signature: &Signature) -> Result<()> {
    let refuse = |at: &dyn ToTokens, why: &str| Err(Error::new_spanned(at.to_token_stream(), why));
    if let Some(word) = &signature.asyncness {
        return refuse(word, "a function is not async: it runs on a thread of its own, and may block");
    }
    if let Some(word) = &signature.unsafety {
        return refuse(word, "a function can't be unsafe: its callers are in other processes");
    }
    if !signature.generics.params.is_empty() {
        return refuse(&signature.generics, "a function can't be generic: its types are in the descriptor");
    }
    if !is_name(&signature.ident.unraw().to_string(), FUNCTION_NAME_MAX, |c| c == '_') {
        return refuse(&signature.ident, "a function's name is a-z, then a-z, 0-9 and `_`, at most 64 bytes");
    }
    match signature.receiver() {
        Some(receiver) if receiver.reference.is_some() && receiver.mutability.is_none() => Ok(()),
        Some(receiver) => refuse(receiver, "a function takes `&self`: calls run side by side"),
        None => refuse(&signature.ident, "a function takes `&self`"),
    }
}

/// The input, and whether a deadline follows.
fn arguments(signature: &Signature) -> Result<(Option<Type>, bool)> {
    let mut types: Vec<&Type> = Vec::new();
    for argument in &signature.inputs {
        if let FnArg::Typed(typed) = argument {
            types.push(&typed.ty);
        }
    }
    let deadline = types.last().is_some_and(|last| is_called(last, "Deadline"));
    if deadline {
        types.pop();
    }
    match types.as_slice() {
        [] => Ok((None, deadline)),
        [input] => Ok((Some((*input).clone()), deadline)),
        [_, more, ..] => {
            Err(Error::new(more.span(), "a function takes one input, then at most a `Deadline`"))
        }
    }
}

/// `T` of `Result<T, PluginError>`.
fn output(output: &ReturnType) -> Result<Type> {
    let wrong = || Error::new(output.span(), "a function returns `Result<Reply, PluginError>`");
    let ReturnType::Type(_, ty) = output else {
        return Err(wrong());
    };
    let Type::Path(path) = ty.as_ref() else {
        return Err(wrong());
    };
    let last = path.path.segments.last().filter(|last| last.ident == "Result").ok_or_else(wrong)?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else {
        return Err(wrong());
    };
    match arguments.args.first() {
        Some(GenericArgument::Type(ty)) => Ok(ty.clone()),
        _ => Err(wrong()),
    }
}

fn rawness(signature: &Signature, input: Option<&Type>, output: &Type) -> Result<bool> {
    let raw_input = input.is_some_and(|input| is_called(input, "Bytes"));
    if raw_input == is_called(output, "Bytes") {
        return Ok(raw_input);
    }
    Err(Error::new(signature.span(), "a raw function both takes and returns `Bytes`"))
}

/// Whether the type's last name is this. A macro sees names only; the compiler checks that it is the SDK's type.
fn is_called(ty: &Type, name: &str) -> bool {
    match ty {
        Type::Path(path) => path.path.segments.last().is_some_and(|last| last.ident == name),
        _ => false,
    }
}
