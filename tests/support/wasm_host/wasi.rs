//! WASI preview 1, as far as filters get it.

use super::*;

pub(super) const WASI: &str = "wasi_snapshot_preview1";

pub(super) fn link_wasi(linker: &mut Linker<Host>, module: &wasmtime::Module) -> wasmtime::Result<()> {
    link_wasi_functions(linker)?;
    linker.func_wrap(WASI, "proc_exit", |code: u32| -> wasmtime::Result<()> {
        Err(wasmtime::Error::msg(format!("proc_exit({code})")))
    })?;
    for import in module.imports().filter(|import| import.module() == WASI) {
        let known = import.name() == "proc_exit" || WASI_FUNCTIONS.contains(&import.name());
        if let (ExternType::Func(signature), false) = (import.ty(), known) {
            linker.func_new(WASI, import.name(), signature, not_supported)?;
        }
    }
    Ok(())
}

fn not_supported(_: Guest<'_>, _: &[Val], results: &mut [Val]) -> wasmtime::Result<()> {
    results.fill(Val::I32(errno::NOSYS as i32));
    Ok(())
}

fn environment(guest: &Guest) -> Vec<Vec<u8>> {
    let entry = |(name, value): &(String, String)| format!("{name}={value}\0").into_bytes();
    guest.data().world.env.iter().map(entry).collect()
}

imports! { WASI_FUNCTIONS, link_wasi_functions, "wasi_snapshot_preview1";

    fn random_get(guest, data, size) {
        if size > 1 << 16 {
            return Err(Refusal::Status(errno::INVAL));
        }
        let mut bytes = vec![0; size as usize];
        let host = guest.data_mut();
        if host.world.host.has_strong_random {
            host.random.read_exact(&mut bytes).map_err(|_| Refusal::Status(errno::IO))?;
        } else {
            // libc's random(), which is predictable: here the same for every worker.
            bytes.iter_mut().for_each(|byte| {
                host.weak = host.weak.wrapping_mul(1_103_515_245).wrapping_add(12_345);
                *byte = (host.weak >> 16) as u8;
            });
        }
        write(guest, data, &bytes)
    }

    /// Both the wall clock and the monotonic clock show the test's time.
    fn clock_time_get(guest, clock, _precision: u64, time_out) {
        if clock > 1 {
            return Err(Refusal::Status(errno::NOTSUP));
        }
        let world = &guest.data().world;
        let now = world.now_ns - world.now_ns % world.host.clock_step;
        write_u64(guest, time_out, now)
    }

    fn environ_sizes_get(guest, count_out, size_out) {
        let entries = environment(guest);
        write_u32(guest, count_out, entries.len() as u32)?;
        write_u32(guest, size_out, entries.iter().map(Vec::len).sum::<usize>() as u32)
    }

    fn environ_get(guest, pointers_out, data_out) {
        let (mut pointer, mut data) = (pointers_out, data_out);
        for entry in environment(guest) {
            write_u32(guest, pointer, data)?;
            write(guest, data, &entry)?;
            pointer += 4;
            data += entry.len() as u32;
        }
        Ok(())
    }

    fn args_sizes_get(guest, count_out, size_out) {
        write_u32(guest, count_out, 0)?;
        write_u32(guest, size_out, 0)
    }

    fn args_get(_guest, _pointers_out, _data_out) {
        Ok(())
    }

    /// Standard output and error go to the log.
    fn fd_write(guest, fd, slices, count, written_out) {
        let level = match fd {
            1 => Level::Info,
            2 => Level::Error,
            _ => return Err(Refusal::Status(errno::BADF)),
        };
        let table = read(guest, slices, count.saturating_mul(8))?;
        let mut table = table.as_slice();
        let mut line = Vec::new();
        while let (Some(data), Some(size)) = (take_u32(&mut table), take_u32(&mut table)) {
            line.extend(read(guest, data, size)?);
        }
        write_u32(guest, written_out, line.len() as u32)?;
        guest.data_mut().log(level, line.strip_suffix(b"\n").unwrap_or(&line));
        Ok(())
    }
}
