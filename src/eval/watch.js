'use strict';
// Asks for the page again every two seconds while the run goes on, and puts its new content in place of the old:
// where the reader stands and which tables are open stays. Without scripts the page reloads itself.
(function () {
  var misses = 0;

  function say(words) {
    var line = document.querySelector('.live');
    if (line) line.textContent = words;
  }

  function take(text) {
    var fresh = new DOMParser().parseFromString(text, 'text/html');
    var now = document.querySelector('main'), next = fresh.querySelector('main');
    if (!now || !next) return;
    var open = [];
    now.querySelectorAll('details').forEach(function (d, i) { open[i] = d.open; });
    next.querySelectorAll('details').forEach(function (d, i) { if (open[i]) d.open = true; });
    now.replaceWith(document.adoptNode(next));
    document.title = fresh.title;
  }

  function ask() {
    var main = document.querySelector('main');
    if (!main || main.dataset.live !== 'yes') return; // the run has ended: nothing more will come
    fetch('/', { cache: 'no-store' }).then(function (answer) {
      if (!answer.ok) throw new Error(answer.status);
      return answer.text();
    }).then(function (text) {
      misses = 0;
      take(text);
      setTimeout(ask, 2000);
    }).catch(function () {
      if (++misses < 5) return setTimeout(ask, 2000);
      say('moetune watch no longer answers: this is how the run stood when it last did. Reload to try again.');
    });
  }
  setTimeout(ask, 2000);
}());
