# AnyEvent::Fork::RPC as a contender: the same lines on the same socket as bench/call_owner.py. It has no operator.neg,
# but a function that does the same; strings are what it sends fastest. Its synchronous backend answers.
use strict;
use warnings;
use Fcntl qw(F_SETFD FD_CLOEXEC);
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);

use constant IN_FLIGHT => 64;

my ($fd) = @ARGV;
open my $control, "+<&=", $fd or die "descriptor $fd: $!";
fcntl $control, F_SETFD, FD_CLOEXEC or die "descriptor $fd: $!";
select((select($control), $| = 1)[0]);

unless (eval { require EV; require AnyEvent; require AnyEvent::Fork; require AnyEvent::Fork::RPC; 1 }) {
   my ($why) = split /\n/, $@;
   $why =~ s/ \(you may need.*//;
   print $control "unavailable $why\n";
   exit;
}

sub now { clock_gettime (CLOCK_MONOTONIC) }

my $rpc = AnyEvent::Fork->new
   ->eval ('sub neg { -$_[0] }')
   ->AnyEvent::Fork::RPC::run ("neg", on_error => sub { die "$_[0]\n" });

sub one {
   my $answer = AnyEvent->condvar;
   $rpc->(1, $answer);
   $answer->recv
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
   my $waiting = 0;
   my $next; $next = sub {
      if (now () < $begin + $seconds) {
         ++$count;
         ++$waiting;
         $rpc->(1, sub { --$waiting; $next->(); $end->send unless $waiting });
      }
   };
   $next->() for 1 .. IN_FLIGHT;
   $end->recv;
   undef $next;
   ($count, now () - $begin)
}

my %measures = (sequential => \&sequential, in_flight => \&in_flight);

one == -1 or die "a wrong answer\n";
print $control "ok\n";
while (defined (my $line = <$control>)) {
   my ($measure, $amount) = split " ", $line;
   print $control join (" ", "ok", map { sprintf "%.7g", $_ } $measures{$measure}->($amount)), "\n";
}
