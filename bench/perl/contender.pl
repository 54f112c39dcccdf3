# AnyEvent::Fork as a contender: the same lines on the same socket as bench/owner.py, for "new" and for "new_exec".
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Contender;

my ($fd, $constructor) = @ARGV;
my $control = control ($fd, qw(EV AnyEvent AnyEvent::Fork));

# A template in which the function that sends a byte is loaded, as anyfork's has its function loaded.
my $code = 'sub byte { syswrite $_[0], "x" }';
my $template = AnyEvent::Fork->new_exec->eval ($code);

sub create { $constructor eq "new" ? AnyEvent::Fork->new : AnyEvent::Fork->new_exec }

sub create_talking { $constructor eq "new" ? $template->fork : AnyEvent::Fork->new_exec->eval ($code) }

# Calls back at the end of the process, which is the end of its socket; EV reaps what new_exec leaves to us.
sub start {
   my ($done) = @_;
   create->run ("CORE::exit", sub {
      my ($socket) = @_;
      my $watcher; $watcher = AnyEvent->io (fh => $socket, poll => "r", cb => sub {
         undef $watcher;
         close $socket;
         $done->();
      });
   });
}

sub one {
   my $end = AnyEvent->condvar;
   start ($end);
   $end->recv;
}

sub in_flight {
   my ($seconds) = @_;
   my ($count, $begin, $end) = (0, now, AnyEvent->condvar);
   my $next; $next = sub {
      if (now () < $begin + $seconds) {
         ++$count;
         $end->begin;
         start (sub { $next->(); $end->end });
      }
   };
   $next->() for 1 .. IN_FLIGHT;
   $end->recv;
   undef $next;
   ($count, now () - $begin)
}

sub first_byte_once {
   my ($begin, $byte, $end) = (now, AnyEvent->condvar, AnyEvent->condvar);
   create_talking->run (byte => sub {
      my ($socket) = @_;
      my $watcher; $watcher = AnyEvent->io (fh => $socket, poll => "r", cb => sub {
         if (sysread $socket, my $data, 1) {
            $byte->send (now () - $begin);
         } else {
            undef $watcher;
            $end->send;
         }
      });
   });
   my $took = $byte->recv;
   $end->recv;
   $took
}

sub first_byte {
   my ($seconds) = @_;
   my (@samples, $begin);
   $begin = now;
   push @samples, first_byte_once while !@samples || now () < $begin + $seconds;
   @samples
}

one;
answer ($control, first_byte => \&first_byte, sequential => sub { sequential (\&one, @_) }, in_flight => \&in_flight);
