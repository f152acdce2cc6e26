//! The crate's own sources, parsed: modules, the arrows between their files, and the size of their functions. Code for
//! tests (`#[cfg(test)]`) is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, UseTree, Visibility};

/// Longest chain of re-exports that is followed; more than the sources have.
const MAX_REEXPORTS: usize = 16;

/// Every module reachable from the crate's roots.
pub struct Sources {
    modules: Vec<Module>,
    /// Root module of the library; the binaries name it `callbound`.
    library: usize,
    folder: PathBuf,
}

#[derive(Default)]
struct Module {
    /// Path of the file below `src`; an inline module has its parent's.
    file: String,
    parent: usize,
    root: usize,
    children: BTreeMap<String, usize>,
    items: BTreeSet<String>,
    imports: Vec<Import>,
    mentions: Vec<Vec<String>>,
    /// Names that patterns bind: a path of one such name is a variable.
    variables: BTreeSet<String>,
    functions: Vec<Function>,
}

impl Module {
    fn is_variable(&self, path: &[String]) -> bool {
        matches!(path, [name] if self.variables.contains(name))
    }
}

struct Import {
    /// `None`: a glob.
    name: Option<String>,
    path: Vec<String>,
    is_reexport: bool,
}

/// Size of one function.
pub struct Function {
    pub name: String,
    /// Path of the file below `src`.
    pub file: String,
    pub line: usize,
    /// Lines from `fn` to the closing brace, both counted.
    pub lines: usize,
    /// Number of parameters, `self` included.
    pub parameters: usize,
}

/// Module or item that a path leads to.
#[derive(Clone, Copy)]
enum Target<'a> {
    Module(usize),
    /// The module that defines the item, and the item's name there.
    Item(usize, &'a str),
}

/// Names that one file takes from another, by the two files.
pub type Arrows = BTreeMap<(String, String), BTreeSet<String>>;

impl Sources {
    /// Parses the library and the binaries below this folder.
    pub fn read(folder: &Path) -> Self {
        let mut sources = Self { modules: Vec::new(), library: 0, folder: folder.to_path_buf() };
        sources.add_root("lib.rs");
        let mut binaries: Vec<String> = entries(&folder.join("bin"))
            .into_iter()
            .map(|path| if path.is_dir() { path.join("main.rs") } else { path })
            .filter(|path| path.is_file())
            .map(|path| sources.relative(&path))
            .collect();
        binaries.sort();
        for binary in binaries {
            sources.add_root(&binary);
        }
        sources
    }

    /// Paths of the parsed files, below `src`.
    pub fn files(&self) -> BTreeSet<&str> {
        self.modules.iter().map(|module| module.file.as_str()).collect()
    }

    pub fn functions(&self) -> impl Iterator<Item = &Function> {
        self.modules.iter().flat_map(|module| &module.functions)
    }

    /// Resolves every path of every module. An import for use is an arrow to the file that defines the item; a
    /// re-export or a `mod` is none, but what the module itself uses through it is.
    pub fn arrows(&self) -> Arrows {
        let mut arrows = Arrows::new();
        for (index, module) in self.modules.iter().enumerate() {
            let imports = module.imports.iter().filter(|import| !import.is_reexport && import.name.is_some());
            let mentions = module.mentions.iter().filter(|path| !module.is_variable(path));
            let paths = imports.map(|import| &import.path).chain(mentions);
            for path in paths {
                let Some(Target::Item(definer, name)) = self.resolve(index, path, 0) else { continue };
                let definer = &self.modules[definer].file;
                if *definer != module.file {
                    let names = arrows.entry((module.file.clone(), definer.clone())).or_default();
                    names.insert(name.to_owned());
                }
            }
        }
        arrows
    }

    fn relative(&self, path: &Path) -> String {
        let below = path.strip_prefix(&self.folder).expect("a file below src");
        below.to_string_lossy().replace('\\', "/")
    }

    fn add_root(&mut self, file: &str) {
        let index = self.modules.len();
        self.modules.push(Module { file: file.to_owned(), parent: index, root: index, ..Module::default() });
        self.read_file(index, true);
    }

    fn read_file(&mut self, index: usize, owns_its_folder: bool) {
        let file = self.modules[index].file.clone();
        let text = fs::read_to_string(self.folder.join(&file)).expect("a readable source");
        let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("src/{file}: {error}"));
        let path = self.folder.join(&file);
        let folder = if owns_its_folder { path.with_file_name("") } else { path.with_extension("") };
        self.add_items(index, &parsed.items, &folder);
    }

    fn add_items(&mut self, index: usize, items: &[Item], folder: &Path) {
        let mut reader = Reader { module: std::mem::take(&mut self.modules[index]), modules: Vec::new() };
        items.iter().for_each(|item| reader.visit_item(item));
        self.modules[index] = reader.module;
        for child in reader.modules {
            self.add_child(index, &child, folder);
        }
    }

    fn add_child(&mut self, parent: usize, child: &ItemMod, folder: &Path) {
        let index = self.modules.len();
        let name = child.ident.to_string();
        let root = self.modules[parent].root;
        let file = self.modules[parent].file.clone();
        self.modules[parent].children.insert(name.clone(), index);
        self.modules.push(Module { file, parent, root, ..Module::default() });
        if let Some((_, items)) = &child.content {
            return self.add_items(index, items, &folder.join(&name));
        }
        let sibling = folder.join(format!("{name}.rs"));
        let inside = folder.join(&name).join("mod.rs");
        let written = written_path(&child.attrs).map(|path| folder.join(path));
        let path = written.unwrap_or_else(|| if inside.is_file() { inside } else { sibling });
        self.modules[index].file = self.relative(&path);
        self.read_file(index, path.ends_with("mod.rs"));
    }

    fn resolve<'a>(&'a self, from: usize, path: &'a [String], depth: usize) -> Option<Target<'a>> {
        let (first, rest) = path.split_first()?;
        let start = match first.as_str() {
            "crate" => Some(Target::Module(self.modules[from].root)),
            "self" => Some(Target::Module(from)),
            "super" => Some(Target::Module(self.modules[from].parent)),
            "callbound" => Some(Target::Module(self.library)),
            name => self.look_up(from, name, rest.is_empty(), depth),
        };
        let mut current = start?;
        for (position, name) in rest.iter().enumerate() {
            let Target::Module(module) = current else { return Some(current) };
            current = match name.as_str() {
                "super" => Target::Module(self.modules[module].parent),
                // An item that a macro makes is not seen: it belongs to the module that is named.
                _ => self
                    .look_up(module, name, position + 1 == rest.len(), depth)
                    .unwrap_or(Target::Item(module, name)),
            };
        }
        Some(current)
    }

    /// Finds a name in a module. A module and an item may share one: the last name of a path prefers the item.
    fn look_up<'a>(&'a self, index: usize, name: &'a str, is_last: bool, depth: usize) -> Option<Target<'a>> {
        let module = &self.modules[index];
        let child = module.children.get(name).map(|child| Target::Module(*child));
        if depth > MAX_REEXPORTS || (child.is_some() && !is_last) {
            return child;
        }
        if module.items.contains(name) {
            return Some(Target::Item(index, name));
        }
        let named = module.imports.iter().filter(|import| import.name.as_deref() == Some(name));
        let mut imported = named.filter_map(|import| self.resolve(index, &import.path, depth + 1));
        let globs = module.imports.iter().filter(|import| import.name.is_none());
        let mut through_glob =
            globs.filter_map(|import| match self.resolve(index, &import.path, depth + 1) {
                Some(Target::Module(other)) if other != index => {
                    self.look_up(other, name, is_last, depth + 1)
                }
                _ => None,
            });
        imported.next().or(child).or_else(|| through_glob.next())
    }
}

/// Strongly connected groups of more than one file, each sorted.
pub fn circles(arrows: &Arrows) -> Vec<Vec<&str>> {
    let mut reach: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (from, to) in arrows.keys() {
        reach.entry(from).or_default().insert(to);
    }
    let files: Vec<&str> = reach.keys().copied().collect();
    for through in &files {
        let onward = reach.get(through).cloned().unwrap_or_default();
        for targets in reach.values_mut().filter(|targets| targets.contains(through)) {
            targets.extend(&onward);
        }
    }
    let mutual = |a: &str, b: &str| reach.get(a).is_some_and(|targets| targets.contains(b));
    let mut found: Vec<Vec<&str>> = Vec::new();
    for file in files.iter().filter(|file| mutual(file, file)) {
        match found.iter_mut().find(|circle| mutual(circle[0], file) && mutual(file, circle[0])) {
            Some(circle) => circle.push(file),
            None => found.push(vec![file]),
        }
    }
    found
}

/// Reads one module; its child modules are only collected.
struct Reader {
    module: Module,
    modules: Vec<ItemMod>,
}

impl Reader {
    fn add_function(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let line = signature.fn_token.span.start().line;
        let end = block.brace_token.span.close().end().line;
        self.module.functions.push(Function {
            name: signature.ident.to_string(),
            file: self.module.file.clone(),
            line,
            lines: end + 1 - line,
            parameters: signature.inputs.len(),
        });
    }

    fn add_imports(&mut self, tree: &UseTree, mut path: Vec<String>, is_reexport: bool) {
        let import = |name: Option<String>, path| Import { name, path, is_reexport };
        match tree {
            UseTree::Path(part) => {
                path.push(part.ident.to_string());
                self.add_imports(&part.tree, path, is_reexport);
            }
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.add_imports(tree, path.clone(), is_reexport));
            }
            UseTree::Glob(_) => self.module.imports.push(import(None, path)),
            UseTree::Name(leaf) if leaf.ident == "self" => {
                self.module.imports.push(import(path.last().cloned(), path));
            }
            UseTree::Name(leaf) => {
                path.push(leaf.ident.to_string());
                self.module.imports.push(import(path.last().cloned(), path));
            }
            UseTree::Rename(leaf) => {
                if leaf.ident != "self" {
                    path.push(leaf.ident.to_string());
                }
                self.module.imports.push(import(Some(leaf.rename.to_string()), path));
            }
        }
    }

    /// Collects `a::b::c` from the tokens of a macro, and single names that begin with a capital.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Punct(mark) if mark.as_char() == ':' => colons += 1,
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        self.add_mention(std::mem::take(&mut path));
                    }
                    path.push(name.to_string());
                    colons = 0;
                }
                other => {
                    self.add_mention(std::mem::take(&mut path));
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.add_tokens(group.stream());
                    }
                }
            }
        }
        self.add_mention(path);
    }

    fn add_mention(&mut self, path: Vec<String>) {
        let is_single_word = path.len() == 1 && path[0].starts_with(|first: char| first.is_lowercase());
        if !path.is_empty() && !is_single_word {
            self.module.mentions.push(path);
        }
    }

    fn add_name(&mut self, item: &Item) {
        let name = match item {
            Item::Const(item) => &item.ident,
            Item::Enum(item) => &item.ident,
            Item::Fn(item) => &item.sig.ident,
            Item::Static(item) => &item.ident,
            Item::Struct(item) => &item.ident,
            Item::Trait(item) => &item.ident,
            Item::Type(item) => &item.ident,
            Item::Union(item) => &item.ident,
            _ => return,
        };
        self.module.items.insert(name.to_string());
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        if attributes(item).iter().any(is_for_tests) {
            return;
        }
        self.add_name(item);
        match item {
            Item::Mod(child) => self.modules.push(child.clone()),
            Item::Use(import) => {
                let is_reexport = !matches!(import.vis, Visibility::Inherited);
                self.add_imports(&import.tree, Vec::new(), is_reexport);
            }
            Item::Macro(made) => self.add_tokens(made.mac.tokens.clone()),
            _ => visit::visit_item(self, item),
        }
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.add_function(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !function.attrs.iter().any(is_for_tests) {
            self.add_function(&function.sig, &function.block);
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(block) = &function.default {
            self.add_function(&function.sig, block);
        }
        visit::visit_trait_item_fn(self, function);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.module.mentions.push(names);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, made: &'ast syn::Macro) {
        self.add_tokens(made.tokens.clone());
    }

    fn visit_attribute(&mut self, _: &'ast Attribute) {}

    fn visit_pat_ident(&mut self, pattern: &'ast syn::PatIdent) {
        self.module.variables.insert(pattern.ident.to_string());
        visit::visit_pat_ident(self, pattern);
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn is_for_tests(attribute: &Attribute) -> bool {
    let is_test = |token: TokenTree| matches!(token, TokenTree::Ident(name) if name == "test");
    match &attribute.meta {
        syn::Meta::List(list) => list.path.is_ident("cfg") && list.tokens.clone().into_iter().any(is_test),
        _ => false,
    }
}

/// Value of `#[path = "…"]`.
fn written_path(attributes: &[Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| match &attribute.meta {
        syn::Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    })
}

/// Entries of a folder; none where it does not exist.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| entry.expect("a readable entry").path()).collect()
}
