// Package reap removes deletes, expired values and dead entries of clocks once
// every member of the cluster has confirmed that nothing can bring them back.
package reap
