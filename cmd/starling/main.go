// Command starling runs nodes of a Starling cluster, and works with one.
package main

import (
	"context"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"go.uber.org/zap"
	"golang.org/x/term"

	"github.com/starling-kv/starling/node"
)

// cli is the command line.
type cli struct {
	Dev        devCmd        `cmd:"" help:"Run a cluster on this machine, for development."`
	Serve      serveCmd      `cmd:"" help:"Run one node."`
	Put        putCmd        `cmd:"" help:"Store a value."`
	Get        getCmd        `cmd:"" help:"Print a value."`
	Delete     deleteCmd     `cmd:"" help:"Delete a key."`
	Status     statusCmd     `cmd:"" help:"Show the cluster, or where a key lives."`
	Repair     repairCmd     `cmd:"" help:"Compare replicas now, and make them equal."`
	Quarantine quarantineCmd `cmd:"" help:"List, restore or discard what a disk that was set back held."`
	Import     importCmd     `cmd:"" help:"Store the files of a directory."`
	Verify     verifyCmd     `cmd:"" help:"Compare the files of a directory with what every node returns."`
	Bench      benchCmd      `cmd:"" help:"Measure the cluster under load, alone or beside others."`
}

const description = "Starling, a key-value cluster without a leader."

// Help is the detail below the commands.
func (*cli) Help() string { return "Exit codes:\n" + exitCodes }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, &world{
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
		terminal: term.IsTerminal(int(os.Stderr.Fd())),
		now:      time.Now, getenv: os.Getenv,
		startNode: func(ctx context.Context, cfg node.Config, log *zap.Logger) (running, error) {
			return node.Start(ctx, cfg, log)
		},
	}, os.Args[1:]))
}

// run carries out the command in args and returns the exit code.
func run(ctx context.Context, w *world, args []string) (code int) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case leave:
			code = int(p)
		default:
			panic(p)
		}
	}()
	k, err := kong.New(&cli{},
		kong.Name("starling"), kong.Description(description),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true, WrapUpperBound: 100}),
		kong.PostBuild(serveVariables), kong.Writers(w.stdout, w.stderr), kong.Exit(func(code int) { panic(leave(code)) }),
		kong.Bind(w), kong.BindTo(ctx, (*context.Context)(nil)))
	if err != nil {
		panic(err)
	}
	command, err := k.Parse(args)
	if err == nil {
		err = command.Run()
	}
	if err != nil {
		sayf(w.stderr, "starling: %s\n", strings.TrimSpace(err.Error()))
	}
	return exitCode(err)
}

// leave is the exit code with which --help leaves the parser.
type leave int
