// Package healing measures what it costs to keep replicas alike: three nodes in
// one process, over loopback and on real disks, are compared, made to differ,
// emptied and restarted. See `make healing`.
package healing
