#!/usr/bin/env bash
# zig's archiver, for objects that GNU's does not know; see ci/zig-cc.sh.
exec "$GREENLET_ZIG" -m ziglang ar "$@"
