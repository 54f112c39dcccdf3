# AnyEvent::Fork as a contender: the same lines on the same socket as bench/owner.py, for "new" and for "new_exec".
use strict;
use warnings;
use Fcntl qw(F_SETFD FD_CLOEXEC);
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);

use constant IN_FLIGHT => 64;

my ($fd, $constructor) = @ARGV;
open my $control, "+<&=", $fd or die "descriptor $fd: $!";
fcntl $control, F_SETFD, FD_CLOEXEC or die "descriptor $fd: $!";
select((select($control), $| = 1)[0]);

unless (eval { require EV; require AnyEvent; require AnyEvent::Fork; 1 }) {
   my ($why) = split /\n/, $@;
   $why =~ s/ \(you may need.*//;
   print $control "unavailable $why\n";
   exit;
}

sub now { clock_gettime (CLOCK_MONOTONIC) }

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

sub sequential {
   my ($seconds) = @_;
   my ($count, $begin) = (0, now);
   while (!$count || now () < $begin + $seconds) {
      one;
      ++$count;
   }
   ($count, now () - $begin)
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

my %measures = (first_byte => \&first_byte, sequential => \&sequential, in_flight => \&in_flight);

one;
print $control "ok\n";
while (defined (my $line = <$control>)) {
   my ($measure, $amount) = split " ", $line;
   print $control join (" ", "ok", map { sprintf "%.7g", $_ } $measures{$measure}->($amount)), "\n";
}
