"""What a path may lead to that is not a file, and must not be opened: a FIFO waits for a writer."""

import stat

# Type of an inode → what it is.
SPECIAL = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
