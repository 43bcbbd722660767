//! The code that `#[plugin]` writes.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Error, ImplItem, ItemImpl, Result, Type, ext::IdentExt};

use crate::args::Args;
use crate::function::{self, Function};

/// The `impl` block without its marks, then the glue; after a mistake, the block and the compile errors.
pub(crate) fn expand(args: TokenStream, block: TokenStream) -> TokenStream {
    let mut block: ItemImpl = match syn::parse2(block) {
        Ok(block) => block,
        Err(error) => {
            return Error::new(error.span(), "#[plugin] goes on an `impl` block").to_compile_error();
        }
    };
    // Taken off in any case: a mark that stays would be one more, misleading error.
    let functions = take_functions(&mut block);
    let glue = check_block(&block)
        .and_then(|()| Args::parse(args))
        .and_then(|args| Ok(glue(&args, &block.self_ty, &functions?)))
        .unwrap_or_else(Error::into_compile_error);
    quote! { #block #glue }
}

fn check_block(block: &ItemImpl) -> Result<()> {
    if let Some((_, path, _)) = &block.trait_ {
        return Err(Error::new_spanned(
            path,
            "#[plugin] goes on `impl Type { … }`, not on the impl of a trait",
        ));
    }
    if !block.generics.params.is_empty() {
        return Err(Error::new_spanned(&block.generics, "a plugin's type can't be generic"));
    }
    Ok(())
}

/// All functions of the block, or all that is wrong with them.
fn take_functions(block: &mut ItemImpl) -> Result<Vec<Function>> {
    let mut functions = Vec::new();
    let mut wrong: Option<Error> = None;
    for item in &mut block.items {
        let ImplItem::Fn(method) = item else { continue };
        match function::take(method) {
            Ok(found) => functions.extend(found),
            Err(error) => match &mut wrong {
                Some(first) => first.combine(error),
                None => wrong = Some(error),
            },
        }
    }
    wrong.map_or(Ok(functions), Err)
}

fn glue(args: &Args, ty: &Type, functions: &[Function]) -> TokenStream {
    let Args { name, version, concurrency, background, default } = args;
    let version = match version {
        Some(version) => quote! { #version },
        None => quote! { ::core::env!("CARGO_PKG_VERSION") },
    };
    let functions = functions.iter().map(entry);
    let default = default.then(|| by_default(ty));
    let export = export(ty);
    quote! {
        #[automatically_derived]
        impl ::plugin_sdk::__private::Exported for #ty {
            const ABOUT: ::plugin_sdk::__private::About = ::plugin_sdk::__private::About {
                name: #name,
                version: #version,
                concurrency: #concurrency,
                background: #background,
            };
            const FUNCTIONS: &'static [::plugin_sdk::__private::Function<Self>] = &[#(#functions),*];
        }
        const _: () = <#ty as ::plugin_sdk::__private::Exported>::ABOUT.check();
        #default
        #export
    }
}

/// One entry of the list of functions.
fn entry(function: &Function) -> TokenStream {
    let Function { name, idempotent, probe_safe, input, output, deadline, raw } = function;
    let text = name.unraw().to_string();
    let input_type = match input {
        Some(input) => quote! { #input },
        None => quote! { ::plugin_sdk::__private::NoInput },
    };
    let arguments =
        [input.as_ref().map(|_| format_ident!("input")), deadline.then(|| format_ident!("deadline"))];
    let arguments = arguments.iter().flatten();
    let (adapter, types) = if *raw {
        (quote! { raw }, quote! { ::core::option::Option::None })
    } else {
        let types = quote! {
            ::core::option::Option::Some(::plugin_sdk::__private::Types::of::<#input_type, #output>())
        };
        (quote! { json }, types)
    };
    quote! {
        ::plugin_sdk::__private::Function {
            name: #text,
            idempotent: #idempotent,
            probe_safe: #probe_safe,
            types: #types,
            run: |plugin: &Self, input: &[u8], deadline: ::plugin_sdk::Deadline| {
                let _ = deadline;
                ::plugin_sdk::__private::#adapter(input, |input: #input_type| {
                    let _ = &input;
                    plugin.#name(#(#arguments),*)
                })
            },
        }
    }
}

fn by_default(ty: &Type) -> TokenStream {
    quote! {
        #[automatically_derived]
        impl ::plugin_sdk::Plugin for #ty {
            type Config = ();
            fn create(
                _: ::plugin_sdk::Host,
                (): (),
            ) -> ::core::result::Result<Self, ::plugin_sdk::PluginError> {
                ::core::result::Result::Ok(::core::default::Default::default())
            }
        }
    }
}

/// The symbol and the note. A test binary may hold several plugins, so it gets neither.
fn export(ty: &Type) -> TokenStream {
    quote! {
        #[cfg(not(test))]
        const _: () = {
            #[unsafe(no_mangle)]
            extern "C" fn fleetswap_plugin_v1() -> *const ::plugin_sdk::__private::Table {
                ::plugin_sdk::__private::table::<#ty>()
            }

            const ABOUT: ::plugin_sdk::__private::About =
                <#ty as ::plugin_sdk::__private::Exported>::ABOUT;
            // A section called `.note…` becomes a note of the library, which linkers keep and `strip` leaves alone.
            #[used]
            #[unsafe(link_section = ".note.fleetswap")]
            static NOTE: ::plugin_sdk::__private::Note<{ ::plugin_sdk::__private::note_length(&ABOUT) }> =
                ::plugin_sdk::__private::note(&ABOUT);
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The messages of the compile errors that come out.
    fn errors(args: TokenStream, block: TokenStream) -> String {
        let text = expand(args, block).to_string();
        text.split("compile_error").skip(1).collect()
    }

    #[test]
    fn a_plugin_without_mistakes_has_no_errors_and_no_marks_left() {
        let text = expand(
            quote! { name = "clock", version = "1.0.0" },
            quote! { impl Clock { #[function(idempotent)] fn time(&self) -> Result<u8, PluginError> { Ok(1) } } },
        )
        .to_string();
        assert!(!text.contains("compile_error"), "{text}");
        assert!(!text.contains("# [function"), "{text}");
        assert!(text.contains("fleetswap_plugin_v1"));
    }

    #[test]
    fn a_wrong_argument_is_named() {
        let block = || quote! { impl Clock {} };
        assert!(errors(quote! {}, block()).contains("needs a name"));
        assert!(errors(quote! { name = "Clock" }, block()).contains("a plugin's name is a-z"));
        assert!(errors(quote! { name = "clock", name = "clock" }, block()).contains("given twice"));
        assert!(errors(quote! { name = "clock", version = "1" }, block()).contains("not a version"));
        let long = format!("1.0.0-{}", "a".repeat(59));
        assert!(errors(quote! { name = "clock", version = #long }, block()).contains("at most 64 bytes"));
        assert!(errors(quote! { name = "clock", concurrency = 0 }, block()).contains("from 1 to 256"));
        assert!(errors(quote! { name = "clock", colour = "red" }, block()).contains("unknown argument"));
    }

    #[test]
    fn a_raw_identifier_is_a_name_without_its_mark() {
        let block = || quote! { impl C { #[function] fn r#type(&self) -> Result<u8, E> { Ok(1) } } };
        assert_eq!(errors(quote! { name = "c" }, block()), "");
        assert!(expand(quote! { name = "c" }, block()).to_string().contains("name : \"type\""));
    }

    #[test]
    fn a_wrong_signature_is_explained() {
        let of =
            |method: TokenStream| errors(quote! { name = "c" }, quote! { impl C { #[function] #method } });
        assert!(of(quote! { fn f(&mut self) -> Result<u8, E> {} }).contains("takes `&self`"));
        assert!(of(quote! { fn f() -> Result<u8, E> {} }).contains("takes `&self`"));
        assert!(of(quote! { async fn f(&self) -> Result<u8, E> {} }).contains("not async"));
        assert!(of(quote! { fn f<T>(&self) -> Result<u8, E> {} }).contains("can't be generic"));
        assert!(of(quote! { fn f(&self) -> u8 {} }).contains("returns `Result<Reply, PluginError>`"));
        assert!(of(quote! { fn f(&self, a: u8, b: u8) -> Result<u8, E> {} }).contains("one input"));
        assert!(of(quote! { fn f(&self, a: Bytes) -> Result<u8, E> {} }).contains("returns `Bytes`"));
        assert!(of(quote! { fn F(&self) -> Result<u8, E> {} }).contains("a function's name"));
    }

    #[test]
    fn all_wrong_functions_are_reported_at_once() {
        let errors = errors(
            quote! { name = "c" },
            quote! { impl C {
                #[function(fast)] fn f(&self) -> Result<u8, E> {}
                #[function] fn g(&self) {}
            } },
        );
        assert!(errors.contains("unknown mark") && errors.contains("returns `Result"), "{errors}");
    }

    #[test]
    fn other_items_than_inherent_blocks_are_refused() {
        assert!(errors(quote! { name = "c" }, quote! { struct C; }).contains("goes on an `impl` block"));
        assert!(errors(quote! { name = "c" }, quote! { impl Copy for C {} }).contains("impl of a trait"));
        assert!(errors(quote! { name = "c" }, quote! { impl<T> C<T> {} }).contains("can't be generic"));
    }
}
