#!/usr/bin/env bash
# Runs zig's archiver, for object formats that GNU's does not know; see ci/zig-cc.sh.
exec "$GREENLET_ZIG" -m ziglang ar "$@"
