#!/bin/sh
# Links our programs statically (glibc, static-pie): an image then needs one file and no distribution.
# As `rustflags` it would reach build scripts and macros, which cannot be static, and compile everything twice.
case " $* " in
*" --crate-name build_script_"* | *" --print"* | *sanitizer*) exec "$@" ;;
*" --crate-type bin "*) exec "$@" -C target-feature=+crt-static ;;
*) exec "$@" ;;
esac
