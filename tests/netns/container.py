"""Runs a program as a container of an image from scratch would: `ROOT USER CAPABILITY.. -- PROGRAM ARGUMENT..`. ROOT is all that
it sees, read-only but for the folder of the admin socket; it holds these capabilities (by number) and can gain no others."""
import ctypes, os, subprocess, sys

PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, LAST_CAPABILITY = 24, 38, 40

rest = sys.argv[1:]
root, user, split = rest[0], int(rest[1]), rest.index("--")
kept, command = {int(number) for number in rest[2:split]}, rest[split + 1 :]
libc = ctypes.CDLL(None, use_errno=True)

# Into a mount namespace of its own first: `ip netns exec` has one already, the node has not.
subprocess.run(["mount", "--make-rprivate", "/"], check=True)
subprocess.run(["mount", "--bind", root, root], check=True)
writable = f"{root}/var/run/gauze/admin"
subprocess.run(["mount", "--bind", writable, writable], check=True)
subprocess.run(["mount", "-o", "remount,bind,ro", root], check=True)
os.chroot(root)
os.chdir("/")
for capability in range(LAST_CAPABILITY + 1):
    if capability not in kept:
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
os.setgroups([])
os.setgid(user)
os.setuid(user)
libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
os.execve(command[0], command, dict(os.environ))
